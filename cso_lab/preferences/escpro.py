"""ESC-Pro: preference pairs along the valid paths of the trees (section 3.2, eq. 5 and 6)."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cso_lab.core.records import SUPPORTER, PreferencePair, Turn
from cso_lab.search.paths import dispreferred, valid_paths
from cso_lab.search.tree import Node, Tree


@dataclass(frozen=True)
class Choice:
    """One preferred turn on one valid path, and the turns that are dispreferred to it (possibly none)."""

    dialogue: str
    history: tuple[Turn, ...]
    preferred: Node
    negatives: tuple[Node, ...]

    def pairs(self) -> Iterable[PreferencePair]:
        """Yields a preference pair for each negative."""
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
    """One valid path (eq. 5): an expanded dialogue, as Table 5 counts them. `dialogue` is the id of the tree it is from."""

    dialogue: str
    opening: Node
    choices: tuple[Choice, ...]
    scene: str = ""
    description: str = ""


@dataclass(frozen=True)
class EscPro:
    """The paper's dataset builder, which turns trees into paths of choices, from which all rows and statistics are derived.

    `theta` is the threshold of Q in eq. 5 and 6, `min_end_visits` the least number of visits of a valid path's end node.
    """

    theta: float
    min_end_visits: int

    def __call__(self, trees: Iterable[Tree]) -> list[Path]:
        """Returns the valid paths of all trees, tree by tree."""
        return [path for tree in trees for path in self._paths(tree)]

    def _paths(self, tree: Tree) -> Iterable[Path]:
        node_paths = valid_paths(tree, self.theta, self.min_end_visits)
        preferred = {node.id for path in node_paths for node in path}
        for root, *nodes in node_paths:
            choices = tuple(
                Choice(tree.id, node.parent.history(), node, tuple(dispreferred(node, self.theta, preferred))) for node in nodes
            )
            yield Path(tree.id, root, choices, tree.scene, tree.description)


def distinct_pairs(paths: Iterable[Path]) -> list[PreferencePair]:
    """Returns the pairs along the paths, in their order; one that several paths share is returned once."""
    pairs: dict[tuple, PreferencePair] = {}
    for pair in (pair for path in paths for choice in path.choices for pair in choice.pairs()):
        pairs.setdefault(pair.key, pair)
    return list(pairs.values())


def sample_paths(paths: Sequence[Path], number: int | None, seed: int) -> list[Path]:
    """Returns `number` random paths in their original order; all of them if `number` is None or too large (section 5.4).

    With the same `seed` a larger sample contains every smaller one.
    """
    order = random.Random(seed).sample(range(len(paths)), len(paths))
    return [paths[index] for index in sorted(order[:number])]
