"""CSO-Random (section 5.3): replaces every low-scoring reply by a new reply in a random other strategy."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cso_lab.core.records import Turn
from cso_lab.preferences.escpro import Choice, Path
from cso_lab.search.tree import Node


@dataclass(frozen=True)
class ReplyRequest:
    """A request for a supporter's reply in `strategy` after `history`, in the dialogue with this id and setting."""

    dialogue: str
    scene: str
    description: str
    history: tuple[Turn, ...]
    strategy: str


Ask = Callable[[Sequence[ReplyRequest]], Sequence[str]]
"""Returns the reply to each request, in their order."""


@dataclass(frozen=True)
class RandomNegatives:
    """Replaces the negatives of every choice by as many new replies, in strategies drawn by `seed`.

    The strategies are drawn without replacement from those that no valid path prefers at this turn; if there are too few of them, the
    choice has fewer negatives. A choice that several paths share gets the same replies. A new reply has no Q (None).
    """

    seed: int

    def __call__(self, paths: Sequence[Path], strategies: Sequence[str], ask: Ask) -> list[Path]:
        """Returns the paths with new negatives; `strategies` are all strategies, `ask` returns the replies."""
        preferred = _preferred(paths)
        requests: dict[tuple, list[ReplyRequest]] = {}
        for path in paths:
            for choice in path.choices:
                if choice.negatives:
                    alternatives = [strategy for strategy in strategies if strategy not in preferred[_turn(choice)]]
                    requests[_key(choice)] = self._requests(path, choice, alternatives)
        replies = iter(ask([request for group in requests.values() for request in group]))
        negatives = {
            key: tuple(_unscored(key[1], request, next(replies), number) for number, request in enumerate(group))
            for key, group in requests.items()
        }
        return [
            replace(path, choices=tuple(replace(choice, negatives=negatives.get(_key(choice), ())) for choice in path.choices))
            for path in paths
        ]

    def _requests(self, path: Path, choice: Choice, alternatives: list[str]) -> list[ReplyRequest]:
        """Returns a request for each negative of a choice, in strategies drawn from `alternatives`."""
        history = "\x1f".join(turn.text for turn in choice.history)
        rng = random.Random(f"{self.seed}/{choice.dialogue}/{history}/{choice.preferred.strategy}")
        sample = rng.sample(alternatives, min(len(choice.negatives), len(alternatives)))
        return [ReplyRequest(choice.dialogue, path.scene, path.description, choice.history, strategy) for strategy in sample]


def _preferred(paths: Sequence[Path]) -> dict[tuple, set[str]]:
    """Returns {turn: the strategies that any path prefers there}."""
    preferred: dict[tuple, set[str]] = {}
    for path in paths:
        for choice in path.choices:
            preferred.setdefault(_turn(choice), set()).add(choice.preferred.strategy)
    return preferred


def _turn(choice: Choice) -> tuple:
    return choice.dialogue, choice.history


def _key(choice: Choice) -> tuple:
    return choice.dialogue, choice.preferred, choice.history


def _unscored(preferred: Node, request: ReplyRequest, reply: str, number: int) -> Node:
    """Returns a node for a new reply. It is in no tree, and its id is below 0, so that it differs from those of all trees' nodes."""
    node_id = -1 - preferred.id * 1000 - number
    return Node(id=node_id, parent=preferred.parent, strategy=request.strategy, prior=0.0, q=None, supporter=reply)
