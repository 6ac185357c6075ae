"""CSO-Random (section 5.3): what a search found to be low-scoring is swapped for what any other strategy would have said."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cso_lab.core.records import Turn
from cso_lab.preferences.escpro import Choice, Path
from cso_lab.search.tree import Node


@dataclass(frozen=True)
class Wanted:
    """A supporter's reply that is asked for: in `strategy`, after `history`, in a dialogue with this setting."""

    dialogue: str
    scene: str
    description: str
    history: tuple[Turn, ...]
    strategy: str


Ask = Callable[[Sequence[Wanted]], Sequence[str]]


@dataclass(frozen=True)
class RandomNegatives:
    """Swaps the negatives of every choice for fresh replies, as many as they were, in strategies drawn by `seed`.

    Strategies are drawn from those no valid path prefers at this turn, each at most once; so a choice loses a negative where they run
    out. Choices that several paths share are swapped alike. A fresh reply was never scored: its Q is None.
    """

    seed: int

    def __call__(self, paths: Sequence[Path], strategies: Sequence[str], ask: Ask) -> list[Path]:
        preferred = _preferred(paths)
        swaps: dict[tuple, list[Wanted]] = {}
        for path in paths:
            for choice in path.choices:
                if choice.negatives:
                    swaps[_key(choice)] = self._drawn(
                        path, choice, [s for s in strategies if s not in preferred[_turn(choice)]]
                    )
        replies = iter(ask([wanted for group in swaps.values() for wanted in group]))
        nodes = {
            key: tuple(_unscored(key[1], wanted, next(replies), number) for number, wanted in enumerate(group))
            for key, group in swaps.items()
        }
        return [replace(path, choices=tuple(_with(choice, nodes) for choice in path.choices)) for path in paths]

    def _drawn(self, path: Path, choice: Choice, others: list[str]) -> list[Wanted]:
        said = "\x1f".join(turn.text for turn in choice.history)
        chance = random.Random(f"{self.seed}/{choice.dialogue}/{said}/{choice.preferred.strategy}")
        drawn = chance.sample(others, min(len(choice.negatives), len(others)))
        return [Wanted(choice.dialogue, path.scene, path.description, choice.history, strategy) for strategy in drawn]


def _preferred(paths: Sequence[Path]) -> dict[tuple, set[str]]:
    """The strategies that some path prefers, by turn."""
    found: dict[tuple, set[str]] = {}
    for path in paths:
        for choice in path.choices:
            found.setdefault(_turn(choice), set()).add(choice.preferred.strategy)
    return found


def _turn(choice: Choice) -> tuple:
    return choice.dialogue, choice.history


def _key(choice: Choice) -> tuple:
    return choice.dialogue, choice.preferred, choice.history


def _with(choice: Choice, nodes: dict[tuple, tuple[Node, ...]]) -> Choice:
    return replace(choice, negatives=nodes.get(_key(choice), ()))


def _unscored(preferred: Node, wanted: Wanted, reply: str, number: int) -> Node:
    # Ids below 0: such a node is in no tree.
    name = -1 - preferred.id * 1000 - number
    return Node(id=name, parent=preferred.parent, strategy=wanted.strategy, prior=0.0, q=None, supporter=reply)
