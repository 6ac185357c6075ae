"""Trees made by hand, and search folders to hold them."""

from pathlib import Path

from cso_lab.core.files import write_json
from cso_lab.search.tree import Tree

HOSTILE = "</script><img src=x onerror=alert(1)> 'q' \"q\" & <!-- \u2028 | \n é"
NOTICE = "searched with simulated role players, not with language models"


def hand_made() -> Tree:
    """Seven nodes: 0 - A1 - A2 (end) is the gold dialogue; B, C, D, E are A1's siblings, each of its own kind."""
    tree = Tree("d-0001", "Work", "I lost my job.")
    root = tree.add(None, None, 0.0, q=1.0, n=102, seeker="k-0")
    a1 = tree.add(root, "A", 0.4, q=1.0, n=100, supporter="s-A1", seeker="k-A1", gold=True)
    tree.add(a1, "A", 1.0, q=1.0, n=100, supporter="s-A2", end=True, gold=True)
    tree.add(root, "B", 0.12345678, q=-0.5, n=2, supporter="s-B", seeker="k-B", scores={"E": 1, "I": 2, "H": 3, "S": 0})
    tree.add(root, "C", 0.1)
    tree.add(root, "D", 0.2, supporter="s-D", seeker="k-D")
    tree.add(root, "E", 0.3, q=0.7, n=1, supporter="s-E", seeker="k-E", scores={"E": 4, "I": 3, "H": 4, "S": 4})
    return tree


def bushy(nodes: int, branches: int = 8, expanded: int = 3) -> Tree:
    """A tree of `nodes` nodes: of `branches` strategies a turn `expanded` are written and grown further, breadth first."""
    tree = Tree("d-large", "Large", "A large tree.")
    tree.add(None, None, 0.0, q=1.0, n=nodes, seeker="k-0")
    for parent in tree.nodes:
        for i in range(branches if parent.expanded else 0):
            if len(tree.nodes) == nodes:
                return tree
            if i < expanded:
                number = len(tree.nodes)
                said = {"supporter": f"supporter {number} " + "word " * 30, "seeker": f"seeker {number} " + "word " * 20}
                tree.add(parent, f"Strategy {i}", 1 / branches, q=0.1 * i, n=1, scores=dict.fromkeys("EIHS", 3), **said)
            else:
                tree.add(parent, f"Strategy {i}", 1 / branches)
    raise AssertionError("unreachable: a turn always has more strategies")


def write_search(folder: Path, *trees: Tree, **more) -> Path:
    """A search folder with these trees; `more` stands in its search.json."""
    for tree in trees:
        write_json(folder / "trees" / f"{tree.id}.json", tree.to_json())
    usage = {"calls": {"judge": 1234}, "prompt_tokens": 10, "completion_tokens": 20, "cost": 0.0, "unpriced": 0}
    summary = {"players": "simulated", "notice": NOTICE, "dialogues": len(trees), "trees": len(trees), "usage": usage}
    write_json(folder / "search.json", summary | more)
    return folder
