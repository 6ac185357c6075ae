"""ESC-Pro: preference pairs along the valid paths of the trees (section 3.2, eq. 5 and 6)."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cso_lab.core.records import SUPPORTER, PreferencePair, Turn
from cso_lab.search.paths import dispreferred, valid_paths
from cso_lab.search.tree import Node, Tree


@dataclass(frozen=True)
class Choice:
    """One preferred turn on one valid path, and what is dispreferred in its place (possibly nothing)."""

    dialogue: str
    history: tuple[Turn, ...]
    preferred: Node
    negatives: tuple[Node, ...]

    def pairs(self) -> Iterable[PreferencePair]:
        for negative in self.negatives:
            yield PreferencePair(
                dialogue=self.dialogue,
                history=self.history,
                chosen=Turn(SUPPORTER, self.preferred.supporter, self.preferred.strategy),
                rejected=Turn(SUPPORTER, negative.supporter, negative.strategy),
                q_chosen=self.preferred.q,
                q_rejected=negative.q,
            )


@dataclass(frozen=True)
class Path:
    """One valid path: an expanded dialogue, as Table 5 counts them."""

    dialogue: str
    opening: Node
    choices: tuple[Choice, ...]
    scene: str = ""
    description: str = ""


@dataclass(frozen=True)
class EscPro:
    """The dataset builder of the paper. A builder turns trees into paths of choices; everything else is derived from these."""

    theta: float
    min_end_visits: int

    def __call__(self, trees: Iterable[Tree]) -> list[Path]:
        """The valid paths of all trees, tree by tree."""
        return [path for tree in trees for path in self._paths(tree)]

    def _paths(self, tree: Tree) -> Iterable[Path]:
        found = valid_paths(tree, self.theta, self.min_end_visits)
        preferred = {node.id for path in found for node in path}
        for root, *nodes in found:
            choices = tuple(
                Choice(tree.id, node.parent.history(), node, tuple(dispreferred(node, self.theta, preferred))) for node in nodes
            )
            yield Path(tree.id, root, choices, tree.scene, tree.description)


def sample_paths(paths: Sequence[Path], number: int | None, seed: int) -> list[Path]:
    """`number` of the paths in their order (None, or more than there are: all), drawn by `seed` so that a larger number holds every
    smaller one (section 5.4)."""
    order = random.Random(seed).sample(range(len(paths)), len(paths))
    return [paths[place] for place in sorted(order[:number])]
