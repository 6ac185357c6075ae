"""Valid paths of a finished tree (eq. 5) and the dispreferred siblings beside them (eq. 6)."""

from cso_lab.search.tree import Node, Tree


def valid_paths(tree: Tree, theta: float, min_end_visits: int) -> list[list[Node]]:
    """Returns the valid paths of eq. 5: root to end, Q > theta on every node, end visited at least `min_end_visits` times."""
    paths = (node.path() for node in tree.ends() if node.n >= min_end_visits)
    return [path for path in paths if all(node.q > theta for node in path)]


def scored(node: Node) -> bool:
    """Returns whether the node's Q is an estimate: it was visited, or scored by the extension pass. Else its Q of 0 means nothing."""
    return node.expanded and (node.n > 0 or node.scores is not None)


def dispreferred(node: Node, theta: float, preferred: set[int]) -> list[Node]:
    """Returns the negatives of eq. 6: scored siblings of `node` with Q < theta that lie on no valid path.

    `preferred`: the ids of all nodes on valid paths.
    """
    siblings = node.parent.children if node.parent else []
    return [s for s in siblings if s is not node and scored(s) and s.q < theta and s.id not in preferred]
