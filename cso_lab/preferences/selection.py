"""Selects the pairs that are trained on from those of a dataset's paths. As it comes, all of them are.

Preferred turns stay as they are, so that SFT rows are the same whatever is selected.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

from cso_lab.core.records import PreferencePair
from cso_lab.preferences.escpro import Choice, Path, distinct_pairs
from cso_lab.search.tree import Node

OF_TREES = ("gold", "choose")
"""The keys whose selection needs what only the trees of a search say: gold turns, Q and priors."""


@dataclass(frozen=True)
class Selection:
    """Which pairs are selected, by the keys of `preferences` with these names; see conf/preferences/escpro.yaml."""

    gold: bool = True
    choose: str = "all"
    balance: str = "none"
    seed: int = 0

    @classmethod
    def of(cls, preferences: Mapping) -> "Selection":
        """Returns the selection that the node `preferences` asks for; a key that it lacks has its default."""
        return cls(**{field.name: preferences[field.name] for field in fields(cls) if field.name in preferences})

    def __call__(self, paths: Sequence[Path]) -> tuple[list[Path], dict[str, int]]:
        """Returns the paths with the negatives of the selected pairs, and {"all": the number of distinct pairs, step: that after it}.

        The counts are empty if no step is asked for.
        """
        steps: dict[str, Callable[[Sequence[Path]], list[Path]]] = {}
        if not self.gold:
            steps["gold"] = without_gold
        if self.choose != "all":
            steps["choose"] = partial(choose_negatives, how=self.choose)
        if self.balance != "none":
            steps["balance"] = partial(balance_strategies, seed=self.seed)
        counts = {"all": len(distinct_pairs(paths))} if steps else {}
        for name, select in steps.items():
            paths = select(paths)
            counts[name] = len(distinct_pairs(paths))
        return list(paths), counts


def without_gold(paths: Sequence[Path]) -> list[Path]:
    """Returns the paths without the pairs whose preferred turn is of the gold dialogue."""
    return _with_negatives(paths, lambda choice: () if choice.preferred.gold else choice.negatives)


def choose_negatives(paths: Sequence[Path], how: str) -> list[Path]:
    """Returns the paths with one negative of each choice that has any; the first of equals.

    "nearest": the one with the highest Q; all negatives are below theta, and the preferred turn above it. "favourite": the one with the
    highest prior, which the strategist thought best and the search found bad.
    """
    value = {"nearest": lambda node: node.q, "favourite": lambda node: node.prior}[how]
    return _with_negatives(paths, lambda choice: (max(choice.negatives, key=value),) if choice.negatives else ())


def balance_strategies(paths: Sequence[Path], seed: int) -> list[Path]:
    """Returns the paths with equally many distinct pairs of every preferred strategy: as many as the rarest of them has.

    Which pairs of the others are kept is drawn by `seed`.
    """
    by_strategy: dict[str, list[PreferencePair]] = {}
    for pair in distinct_pairs(paths):
        by_strategy.setdefault(pair.chosen.strategy, []).append(pair)
    size = min(map(len, by_strategy.values()), default=0)
    kept = {
        pair.key for strategy, pairs in by_strategy.items() for pair in random.Random(f"{seed}/{strategy}").sample(pairs, size)
    }

    def negatives(choice: Choice) -> tuple[Node, ...]:
        return tuple(node for node, pair in zip(choice.negatives, choice.pairs(), strict=True) if pair.key in kept)

    return _with_negatives(paths, negatives)


def _with_negatives(paths: Sequence[Path], negatives: Callable[[Choice], tuple[Node, ...]]) -> list[Path]:
    return [
        replace(path, choices=tuple(replace(choice, negatives=negatives(choice)) for choice in path.choices)) for path in paths
    ]
