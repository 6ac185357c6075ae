"""Builds paths of choices from dialogues that are published with their negatives (ESC-Pro), without a search."""

from collections.abc import Mapping, Sequence

from cso_lab.core.records import SEEKER, Dialogue, Turn
from cso_lab.corpora.escpro import Expanded, opening
from cso_lab.preferences.escpro import Choice, Path
from cso_lab.search.tree import Node, Tree


def expanded_paths(corpus: Expanded, dialogues: Sequence[Dialogue]) -> list[Path]:
    """Returns one path a dialogue.

    Dialogues that were expanded from one seed share a tree, which has the id of the first of them, and its nodes. Q is None, since the
    published file has none.
    """
    trees: dict[tuple, Tree] = {}
    paths = []
    for dialogue in dialogues:
        tree = trees.setdefault(opening(dialogue), Tree(dialogue.id, dialogue.scene, dialogue.description))
        paths.append(_path(tree, dialogue, corpus.negatives[dialogue.id]))
    return paths


def _path(tree: Tree, dialogue: Dialogue, negatives: Mapping[int, Sequence[Turn]]) -> Path:
    turns = dialogue.turns
    start = next(index for index, turn in enumerate(turns) if turn.speaker == SEEKER)
    greeting = turns[0].text if start else None
    node = tree.root if tree.nodes else tree.add(None, None, 0.0, q=None, supporter=greeting, seeker=turns[start].text)
    choices = []
    for index in range(start + 1, len(turns), 2):
        seeker = turns[index + 1].text if index + 1 < len(turns) else None
        rejected = tuple(_child(tree, node, turn.strategy, turn.text, None) for turn in negatives.get(index, ()))
        child = _child(tree, node, turns[index].strategy, turns[index].text, seeker)
        if turns[index].strategy:  # a turn without a known strategy is part of the history, but not trained on
            choices.append(Choice(tree.id, node.history(), child, rejected))
        node = child
    return Path(tree.id, tree.root, tuple(choices), tree.scene, tree.description)


def _child(tree: Tree, parent: Node, strategy: str, supporter: str, seeker: str | None) -> Node:
    """Returns the child of `parent` with this strategy and these texts, which is added unless it exists."""
    for child in parent.children:
        if (child.strategy, child.supporter, child.seeker) == (strategy, supporter, seeker):
            return child
    return tree.add(parent, strategy, 0.0, q=None, supporter=supporter, seeker=seeker)
