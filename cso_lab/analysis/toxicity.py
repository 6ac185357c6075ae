"""Table 7: how toxic each part of the data is, by whichever scorer is chosen (toxicity=...)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

ATTRIBUTES = ("TOXICITY", "SEVERE_TOXICITY", "IDENTITY_ATTACK", "INSULT", "PROFANITY", "THREAT")

Scores = Mapping[str, float]
"""Each of the ATTRIBUTES, 0 to 1. What a value means is the scorer's affair: those of two scorers are not comparable."""


class Scorer(Protocol):
    """Gives texts their scores. `name` and `version` stand beside every number of its; `notice` must be read with them, or is None."""

    name: str
    version: str
    notice: str | None

    def check(self) -> None:
        """A UserError when no text could be scored (no key, no weights, no such model)."""

    def score(self, texts: Sequence[str], folder: Path) -> list[Scores | None]:
        """The scores of distinct texts; None for one that the scorer refuses. What `folder` holds from before is not scored again."""


def toxicity(parts: Mapping[str, Sequence[str]], scorer: Scorer, folder: Path) -> dict:
    """{scorer, version, notice, refused, parts: {part: {n, means}}}: the mean over all utterances of each part.

    An utterance that stands in the data several times counts as often, as in Table 5, but is scored once. (The paper's last row is the mean
    over the utterances of its three parts as Table 5 counts them: 3,113, 3,113 and 8,157.)
    """
    texts = list(dict.fromkeys(text for part in parts.values() for text in part))
    scores = dict(zip(texts, scorer.score(texts, folder), strict=True))
    return {
        "scorer": scorer.name,
        "version": scorer.version,
        "notice": scorer.notice,
        "refused": sum(score is None for score in scores.values()),
        "parts": {part: _means([scores[text] for text in said if scores[text]]) for part, said in parts.items()},
    }


def _means(scores: Sequence[Scores]) -> dict:
    means = {name: sum(score[name] for score in scores) / len(scores) if scores else None for name in ATTRIBUTES}
    return {"n": len(scores), "means": means}
