"""Selects the pairs that are trained on from those of a dataset's paths. As it comes, all of them are.

Preferred turns stay as they are, so that SFT rows are the same whatever is selected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from cso_lab.preferences.escpro import Choice, Path, distinct_pairs
from cso_lab.search.tree import Node

OF_TREES = ("gold", "choose")
"""The keys whose selection needs what only the trees of a search say: gold turns, Q and priors."""


@dataclass(frozen=True)
class Selection:
    """Which pairs are selected, by the keys of `preferences` with these names; see conf/preferences/escpro.yaml."""

    gold: bool = True
    choose: str = "all"

    @classmethod
    def of(cls, preferences: Mapping) -> "Selection":
        """Returns the selection that the node `preferences` asks for; a key that it lacks has its default."""
        return cls(**{field.name: preferences[field.name] for field in fields(cls) if field.name in preferences})

    def __call__(self, paths: Sequence[Path]) -> tuple[list[Path], dict[str, int]]:
        """Returns the paths with the negatives of the selected pairs, and {"all": the number of distinct pairs, step: that after it}.

        The counts are empty if no step is asked for.
        """
        steps = {}
        if not self.gold:
            steps["gold"] = lambda choice: () if choice.preferred.gold else choice.negatives
        if self.choose != "all":
            steps["choose"] = lambda choice: choose_negative(choice, self.choose)
        counts = {"all": len(distinct_pairs(paths))} if steps else {}
        for name, negatives in steps.items():
            paths = [
                replace(path, choices=tuple(replace(choice, negatives=negatives(choice)) for choice in path.choices))
                for path in paths
            ]
            counts[name] = len(distinct_pairs(paths))
        return list(paths), counts


def choose_negative(choice: Choice, how: str) -> tuple[Node, ...]:
    """Returns one of the choice's negatives, or none if it has none; the first of equals.

    "nearest": the one with the highest Q; all negatives are below theta, and the preferred turn above it. "favourite": the one with the
    highest prior, which the strategist thought best and the search found bad.
    """
    value = {"nearest": lambda node: node.q, "favourite": lambda node: node.prior}[how]
    return (max(choice.negatives, key=value),) if choice.negatives else ()
