"""Paths of choices from dialogues that are expanded already (ESC-Pro as published), without a search."""

from collections.abc import Sequence

from cso_lab.core.records import SEEKER, Dialogue
from cso_lab.corpora.escpro import Expanded, opening
from cso_lab.preferences.escpro import Choice, Path
from cso_lab.search.tree import Node, Tree


def expanded_paths(corpus: Expanded, dialogues: Sequence[Dialogue]) -> list[Path]:
    """One path a dialogue. Dialogues that grew from one seed share a tree, named after the first of them, and its nodes; what was never
    searched has no Q (None)."""
    trees: dict[tuple, Tree] = {}
    paths = []
    for dialogue in dialogues:
        tree = trees.setdefault(opening(dialogue), Tree(dialogue.id, dialogue.scene, dialogue.description))
        paths.append(_path(tree, dialogue, corpus.negatives[dialogue.id]))
    return paths


def _path(tree: Tree, dialogue: Dialogue, negatives) -> Path:
    turns = dialogue.turns
    start = next(place for place, turn in enumerate(turns) if turn.speaker == SEEKER)
    greeting = turns[0].text if start else None
    node = tree.root if tree.nodes else tree.add(None, None, 0.0, q=None, supporter=greeting, seeker=turns[start].text)
    choices = []
    for place in range(start + 1, len(turns), 2):
        answer = turns[place + 1].text if place + 1 < len(turns) else None
        rejected = tuple(_below(tree, node, turn.strategy, turn.text, None) for turn in negatives.get(place, ()))
        below = _below(tree, node, turns[place].strategy, turns[place].text, answer)
        if turns[place].strategy:  # a turn of no known strategy is history, and nothing to learn
            choices.append(Choice(tree.id, node.history(), below, rejected))
        node = below
    return Path(tree.id, tree.root, tuple(choices), tree.scene, tree.description)


def _below(tree: Tree, parent: Node, strategy: str, supporter: str, seeker: str | None) -> Node:
    """The node below `parent` with these words, which may be there already."""
    for child in parent.children:
        if (child.strategy, child.supporter, child.seeker) == (strategy, supporter, seeker):
            return child
    return tree.add(parent, strategy, 0.0, q=None, supporter=supporter, seeker=seeker)
