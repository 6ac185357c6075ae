"""Near-duplicates within the training and the test data, and what of the test data is in the training data (leakage).

Two texts are near-duplicates where the Jaccard similarity of their runs of n words, |A and B| / |A or B|, is at least a threshold. This is
exact: texts that share none of their rarest runs cannot be that similar (prefix filtering), and all others are compared.
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
    """A text under the name it is reported by."""

    name: str
    text: str


def runs(text: str, n: int) -> Runs:
    """The distinct runs of `n` words, whatever their case and punctuation; of a shorter text all its words are one run."""
    found = words(text, contractions=True)
    return frozenset(tuple(found[i : i + n]) for i in range(max(len(found) - n, 0) + 1)) if found else frozenset()


def long_enough(texts: Iterable[Text], shortest: int) -> list[Text]:
    """The texts of at least so many words: that two people both say "Thank you so much" means nothing."""
    return [text for text in texts if len(words(text.text, contractions=True)) >= shortest]


def within(texts: Sequence[Text], n: int, similarity: float) -> dict:
    """{pairs, left: {concerned, of}, examples}: how many pairs of the texts are near-duplicates, and how many texts are in one."""
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
    """{pairs, left: {concerned, of}, right: {concerned, of}, examples}: the near-duplicates of which each side has one."""
    ours, theirs = _grouped(left, n), _grouped(right, n)
    pairs, concerned, examples = 0, (set(), set()), []
    for one, other, value in _similar(list(ours), list(theirs), similarity):
        pairs += len(ours[one]) * len(theirs[other])
        concerned[0].add(one)
        concerned[1].add(other)
        examples.append((value, ours[one][0], theirs[other][0]))
    sides = {"left": _side(ours, concerned[0], left), "right": _side(theirs, concerned[1], right)}
    return {"pairs": pairs, **sides, "examples": _closest(examples)}


def _grouped(texts: Iterable[Text], n: int) -> dict[Runs, list[str]]:
    """Names by their text's runs: what is said word for word a hundred times is compared once. Texts without a word are left out."""
    groups: dict[Runs, list[str]] = defaultdict(list)
    for text in texts:
        if found := runs(text.text, n):
            groups[found].append(text.name)
    return groups


def _side(groups: Mapping[Runs, list[str]], concerned: set[Runs], texts: Sequence[Text]) -> dict:
    return {"concerned": sum(len(groups[key]) for key in concerned), "of": len(texts)}


def _closest(examples: list[tuple[float, str, str]]) -> list[dict]:
    closest = sorted(examples, key=lambda example: (-example[0], *example[1:]))[:EXAMPLES]
    return [{"left": one, "right": other, "similarity": round(value, 3)} for value, one, other in closest]


def _similar(
    left: Sequence[Runs], right: Sequence[Runs], similarity: float, same: bool = False
) -> Iterator[tuple[Runs, Runs, float]]:
    """The pairs that are similar enough, with their similarity. `same`: both lists are one, of which each pair counts once."""
    frequency = Counter(run for side in ((left,) if same else (left, right)) for runs in side for run in runs)
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, runs_ in enumerate(left):
        for run in _rarest(runs_, frequency, similarity):
            index[run].append(place)
    for number, runs_ in enumerate(right):
        candidates = {place for run in _rarest(runs_, frequency, similarity) for place in index.get(run, ())}
        for place in sorted(candidates):
            if same and place >= number:
                continue
            shared = len(left[place] & runs_)
            value = shared / (len(left[place]) + len(runs_) - shared)
            if value >= similarity:
                yield left[place], runs_, value


def _rarest(runs: Runs, frequency: Mapping, similarity: float) -> list[tuple[str, ...]]:
    """The rarest runs, so many that any text similar enough has one of them among its own rarest: all but ceil(t |A|) - 1."""
    # A hair less, so that rounding never drops a pair that lies exactly at the threshold.
    kept = len(runs) - math.ceil(similarity * len(runs) - 1e-9) + 1
    return sorted(runs, key=lambda run: (frequency[run], run))[:kept]
