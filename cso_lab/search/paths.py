"""What a finished tree says: valid paths (eq. 5) and the dispreferred siblings beside them (eq. 6)."""

from cso_lab.search.tree import Node, Tree


def valid_paths(tree: Tree, theta: float, min_end_visits: int) -> list[list[Node]]:
    """Eq. 5: root-to-end paths with Q > theta on every node, whose end was visited at least `min_end_visits` times."""
    paths = (node.path() for node in tree.ends() if node.n >= min_end_visits)
    return [path for path in paths if all(node.q > theta for node in path)]


def scored(node: Node) -> bool:
    """Whether Q means anything: the node was visited, or scored by the extension pass. An unscored node is not a bad one."""
    return node.expanded and (node.n > 0 or node.scores is not None)


def dispreferred(node: Node, theta: float, preferred: set[int]) -> list[Node]:
    """Eq. 6: scored siblings of `node` with Q < theta that lie on no valid path; `preferred` holds the ids of all that do."""
    siblings = node.parent.children if node.parent else []
    return [s for s in siblings if s is not node and scored(s) and s.q < theta and s.id not in preferred]
