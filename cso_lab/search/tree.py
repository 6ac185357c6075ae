"""The conversation tree: its nodes (section 3.1.1), selection (eq. 1), backpropagation (eq. 4) and its JSON form."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cso_lab.core.records import SEEKER, SUPPORTER, Scores, Turn


@dataclass(eq=False)
class Node:
    """One state of the conversation: a supporter turn in one strategy and the seeker's reply to it.

    The root has no parent and no strategy; it holds the opening of the dialogue. An unexpanded node has `supporter` None. An end node
    has `end` True; `seeker` is then the seeker's last utterance, if there is one. `prior`, `q` and `n` are P, Q and N of eq. 1.
    `scores` are the judge's for this node's own supporter turn, or None.
    """

    id: int
    parent: "Node | None"
    strategy: str | None
    prior: float
    q: float | None = 0.0  # None in trees that no search has made
    n: int = 0
    supporter: str | None = None
    seeker: str | None = None
    end: bool = False
    gold: bool = False
    scores: Scores | None = None
    children: list["Node"] = field(default_factory=list, repr=False)

    @property
    def expanded(self) -> bool:
        """Whether the node has its supporter turn; the root always counts as expanded."""
        return self.parent is None or self.supporter is not None

    def path(self) -> list["Node"]:
        """Returns the nodes from the root to this one."""
        nodes, node = [], self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    @property
    def path_key(self) -> str:
        """The strategies from the root down, joined by dots. Unlike `id` it does not depend on the order of the search."""
        return ".".join(node.strategy for node in self.path()[1:])

    def history(self) -> tuple[Turn, ...]:
        """Returns all turns up to and including this node."""
        turns = []
        for node in self.path():
            if node.supporter is not None:
                turns.append(Turn(SUPPORTER, node.supporter, node.strategy))
            if node.seeker is not None:
                turns.append(Turn(SEEKER, node.seeker))
        return tuple(turns)

    def pucb(self, c: float) -> float:
        """Returns eq. 1: Q(S) + c P(S) sqrt(N(parent)) / (N(S) + 1)."""
        return self.q + c * self.prior * math.sqrt(self.parent.n) / (self.n + 1)

    def backpropagate(self, reward: float) -> None:
        """Updates N and the mean reward Q (eq. 4) of this node and all nodes above it."""
        for node in self.path():
            node.q = (node.n * node.q + reward) / (node.n + 1)
            node.n += 1


class Tree:
    """The tree of one dialogue. A node's id is its index in `nodes`, in order of creation; the root is 0."""

    def __init__(self, id: str, scene: str, description: str):
        self.id, self.scene, self.description = id, scene, description
        self.nodes: list[Node] = []

    @property
    def root(self) -> Node:
        """The first node."""
        return self.nodes[0]

    def add(self, parent: Node | None, strategy: str | None, prior: float, **fields) -> Node:
        """Appends and returns a node below `parent` (None for the root); `fields` are further fields of Node."""
        node = Node(id=len(self.nodes), parent=parent, strategy=strategy, prior=prior, **fields)
        self.nodes.append(node)
        if parent is not None:
            parent.children.append(node)
        return node

    def select(self, c: float) -> Node:
        """Returns the leaf reached by following the highest PUCB, the first of equals (section 3.1.2). Changes no node."""
        node = self.root
        while children := self.children_of(node):
            node = max(children, key=lambda child: child.pucb(c))
        return node

    def children_of(self, node: Node) -> list[Node]:
        """Returns the children of a node; `select` uses this, so that an overlay can copy them first."""
        return node.children

    def ends(self) -> Iterator[Node]:
        """Returns the end nodes, in order of creation."""
        return (node for node in self.nodes if node.end)

    def to_json(self) -> dict:
        """Returns the content of a file `trees/*.json`."""
        return {
            "id": self.id,
            "scene": self.scene,
            "description": self.description,
            "nodes": [
                {
                    "id": node.id,
                    "parent": node.parent.id if node.parent else None,
                    "strategy": node.strategy,
                    "prior": node.prior,
                    "q": node.q,
                    "n": node.n,
                    "supporter": node.supporter,
                    "seeker": node.seeker,
                    "end": node.end,
                    "gold": node.gold,
                    "scores": dict(node.scores) if node.scores else None,
                }
                for node in self.nodes
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping) -> "Tree":
        """Returns the tree that `to_json` has written. Raises KeyError, IndexError or TypeError if `data` is not of that form."""
        tree = cls(data["id"], data["scene"], data["description"])
        for row in data["nodes"]:
            fields = {key: value for key, value in row.items() if key not in ("id", "parent")}
            tree.add(tree.nodes[row["parent"]] if row["parent"] is not None else None, **fields)
        return tree
