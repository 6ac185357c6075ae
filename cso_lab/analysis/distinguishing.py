"""What tells preferred from dispreferred replies: where the two are from, and how far their words, or their strategies, give them away.

A pair of the corpus's prose against a line of the supporter role can be told apart without reading the dialogue. A training on such pairs
may learn how the two are written and nothing about strategies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cso_lab.core.words import words
from cso_lab.evaluation.score import INTERVAL, RESAMPLES
from cso_lab.preferences.escpro import Path
from cso_lab.search.tree import Node

GOLD, SUPPORTER_ROLE = "gold", "supporter"
"""Where a reply is from: the corpus's dialogue, or the supporter role."""
_FOLDS = 5
_SEED = 0


@dataclass(frozen=True)
class _Pair:
    """A preference pair: its dialogue, and by side the source of the reply (None: unknown), its words and its strategy."""

    dialogue: str
    sources: tuple[str | None, str | None]
    words: tuple[list[str], list[str]]
    strategies: tuple[list[str], list[str]]

    @property
    def both(self) -> tuple[list[str], list[str]]:
        """Words and strategy of each side; a strategy stands in brackets and is no word."""
        return self.words[0] + self.strategies[0], self.words[1] + self.strategies[1]


def distinguishing(paths: Sequence[Path]) -> dict | None:
    """Returns {dialogues, folds, groups} of the distinct pairs of the paths; None if they are from fewer than two dialogues.

    A group is {preferred, dispreferred, pairs, words, strategies, both}: the sources of both replies (None for all pairs), the number of
    pairs, and of three classifiers the {accuracy, interval}, in percent. They see words and runs of two words, the strategy, or both, and
    nothing of the history. The accuracy is the share of pairs whose preferred reply gets the higher score, by a logistic regression on the
    other folds' pairs; no dialogue is in two folds, and chance is 50. The 95% interval is a bootstrap over dialogues.
    """
    pairs = list(_pairs(paths))
    dialogues = sorted({pair.dialogue for pair in pairs})
    if len(dialogues) < 2:
        return None
    index = np.array([dialogues.index(pair.dialogue) for pair in pairs])
    folds = min(_FOLDS, len(dialogues))
    correct = {
        name: _correct([getattr(pair, name) for pair in pairs], index, folds) for name in ("words", "strategies", "both")
    }
    members = {(None, None): np.ones(len(pairs), dtype=bool)}
    for sources in sorted({pair.sources for pair in pairs if None not in pair.sources}):
        members[sources] = np.array([pair.sources == sources for pair in pairs])
    groups = [
        {"preferred": sources[0], "dispreferred": sources[1], "pairs": int(inside.sum())}
        | {name: _accuracy(values[inside], index[inside]) for name, values in correct.items()}
        for sources, inside in members.items()
    ]
    return {"dialogues": len(dialogues), "folds": folds, "groups": groups}


def _pairs(paths: Sequence[Path]) -> Iterator[_Pair]:
    """Yields the distinct pairs."""
    known = set()
    for path in paths:
        for choice in path.choices:
            for negative, pair in zip(choice.negatives, choice.pairs(), strict=True):
                if pair.key not in known:
                    known.add(pair.key)
                    sides = (choice.preferred, negative)
                    yield _Pair(
                        dialogue=pair.dialogue,
                        sources=tuple(_source(node, path) for node in sides),
                        words=tuple(_bag(node.supporter) for node in sides),
                        strategies=tuple([f"({node.strategy})"] for node in sides),
                    )


def _source(node: Node, path: Path) -> str | None:
    """Returns the source of a reply; None in trees that no search has made, where nothing is marked as gold."""
    if not path.opening.gold:
        return None
    return GOLD if node.gold else SUPPORTER_ROLE


def _bag(text: str) -> list[str]:
    """Returns the words of a text and its runs of two words; of a text without words, the empty one."""
    ones = words(text) or [""]
    return ones + [" ".join(run) for run in zip(ones, ones[1:], strict=False)]


def _correct(sides: Sequence[tuple[list[str], list[str]]], dialogues: np.ndarray, folds: int) -> np.ndarray:
    """Returns for each pair 1 if the preferred reply gets the higher score, 0 if the lower one, and 1/2 if both are equal.

    `sides`: the features of both replies of each pair; `dialogues`: the number of its dialogue.
    """
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    preferred, dispreferred = zip(*sides, strict=True)
    correct = np.zeros(len(sides))
    for fit, held_out in GroupKFold(folds).split(correct, groups=dialogues):
        vectorizer = CountVectorizer(analyzer=lambda features: features, binary=True)
        vectorizer.fit([side[i] for side in (preferred, dispreferred) for i in fit])
        difference = vectorizer.transform(preferred).astype(float) - vectorizer.transform(dispreferred)
        # Each pair in both orders, so that neither side is the first one.
        examples = vstack([difference[fit], -difference[fit]])
        labels = np.repeat([1, 0], len(fit))
        model = LogisticRegression(fit_intercept=False, max_iter=1000).fit(examples, labels)
        score = model.decision_function(difference[held_out])
        correct[held_out] = np.where(score == 0, 0.5, score > 0)
    return correct


def _accuracy(correct: np.ndarray, dialogues: np.ndarray) -> dict:
    """Returns {accuracy, interval} in percent."""
    _, index = np.unique(dialogues, return_inverse=True)
    sums, sizes = np.bincount(index, weights=correct), np.bincount(index)
    drawn = np.random.default_rng(_SEED).integers(len(sizes), size=(RESAMPLES, len(sizes)))
    resampled = 100 * sums[drawn].sum(1) / sizes[drawn].sum(1)
    return {"accuracy": 100 * float(correct.mean()), "interval": np.percentile(resampled, INTERVAL).tolist()}
