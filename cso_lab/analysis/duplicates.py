"""Near-duplicates within the training and the test data, and between the two (leakage).

Two texts are near-duplicates if the Jaccard similarity of their sets of runs of n words, |A and B| / |A or B|, is at least a threshold.
The result is exact: texts that have none of their rarest runs in common cannot be that similar (prefix filtering), and all others are
compared.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cso_lab.core.words import words

Runs = frozenset[tuple[str, ...]]
EXAMPLES = 5


@dataclass(frozen=True)
class Text:
    """A text and the name by which it is reported."""

    name: str
    text: str


def runs(text: str, n: int) -> Runs:
    """Returns the distinct runs of `n` words, without case and punctuation; a shorter text is one run."""
    tokens = words(text, contractions=True)
    return frozenset(tuple(tokens[i : i + n]) for i in range(max(len(tokens) - n, 0) + 1)) if tokens else frozenset()


def long_enough(texts: Iterable[Text], shortest: int) -> list[Text]:
    """Returns the texts of at least `shortest` words, since "Thank you so much" from two people is no leakage."""
    return [text for text in texts if len(words(text.text, contractions=True)) >= shortest]


def within(texts: Sequence[Text], n: int, similarity: float) -> dict:
    """Returns {pairs, left: {concerned, of}, examples} of the near-duplicates among some texts.

    `pairs` is their number, `concerned` the number of texts that are in such a pair, `of` the number of all texts.
    """
    groups = _grouped(texts, n)
    sizes = {key: len(members) for key, members in groups.items()}
    pairs = sum(size * (size - 1) // 2 for size in sizes.values())
    concerned = {key for key, size in sizes.items() if size > 1}
    examples = [(1.0, *members[:2]) for members in groups.values() if len(members) > 1]
    for one, other, value in _similar(list(groups), list(groups), similarity, same=True):
        pairs += sizes[one] * sizes[other]
        concerned |= {one, other}
        examples.append((value, groups[one][0], groups[other][0]))
    return {"pairs": pairs, "left": _side(groups, concerned, texts), "examples": _closest(examples)}


def between(left: Sequence[Text], right: Sequence[Text], n: int, similarity: float) -> dict:
    """Returns {pairs, left, right, examples}, as `within` does, of the near-duplicates of a text on the left and one on the right."""
    left_groups, right_groups = _grouped(left, n), _grouped(right, n)
    pairs, concerned, examples = 0, (set(), set()), []
    for one, other, value in _similar(list(left_groups), list(right_groups), similarity):
        pairs += len(left_groups[one]) * len(right_groups[other])
        concerned[0].add(one)
        concerned[1].add(other)
        examples.append((value, left_groups[one][0], right_groups[other][0]))
    sides = {"left": _side(left_groups, concerned[0], left), "right": _side(right_groups, concerned[1], right)}
    return {"pairs": pairs, **sides, "examples": _closest(examples)}


def _grouped(texts: Iterable[Text], n: int) -> dict[Runs, list[str]]:
    """Returns {runs: names of the texts with exactly these}, so that equal texts are compared once; without texts that have no word."""
    groups: dict[Runs, list[str]] = defaultdict(list)
    for text in texts:
        if text_runs := runs(text.text, n):
            groups[text_runs].append(text.name)
    return groups


def _side(groups: Mapping[Runs, list[str]], concerned: set[Runs], texts: Sequence[Text]) -> dict:
    return {"concerned": sum(len(groups[key]) for key in concerned), "of": len(texts)}


def _closest(examples: list[tuple[float, str, str]]) -> list[dict]:
    closest = sorted(examples, key=lambda example: (-example[0], *example[1:]))[:EXAMPLES]
    return [{"left": one, "right": other, "similarity": round(value, 3)} for value, one, other in closest]


def _similar(
    left: Sequence[Runs], right: Sequence[Runs], similarity: float, same: bool = False
) -> Iterator[tuple[Runs, Runs, float]]:
    """Yields the pairs of at least this similarity, with their similarity. `same`: both lists are equal; each pair is yielded once."""
    frequency = Counter(run for side in ((left,) if same else (left, right)) for runs in side for run in runs)
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, left_runs in enumerate(left):
        for run in _rarest(left_runs, frequency, similarity):
            index[run].append(i)
    for j, right_runs in enumerate(right):
        candidates = {i for run in _rarest(right_runs, frequency, similarity) for i in index.get(run, ())}
        for i in sorted(candidates):
            if same and i >= j:
                continue
            shared = len(left[i] & right_runs)
            value = shared / (len(left[i]) + len(right_runs) - shared)
            if value >= similarity:
                yield left[i], right_runs, value


def _rarest(runs: Runs, frequency: Mapping, similarity: float) -> list[tuple[str, ...]]:
    """Returns the rarest runs, all but ceil(t |A|) - 1: any text of similarity t or more has one of them among its own rarest."""
    # Without the small subtraction, rounding could lose a pair whose similarity is exactly the threshold.
    number = len(runs) - math.ceil(similarity * len(runs) - 1e-9) + 1
    return sorted(runs, key=lambda run: (frequency[run], run))[:number]
