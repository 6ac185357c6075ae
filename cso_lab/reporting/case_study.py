"""One turn of a tree as Markdown, in the form of the paper's Table 16: the setting, the history, and every strategy that could follow.

`python -m cso_lab.reporting.case_study TREE.json --node ID` (any node; its siblings are shown with it), or
`--turn K` for the K-th turn of the gold dialogue.
"""

from collections.abc import Sequence
from pathlib import Path

from cso_lab.command import Parser, run
from cso_lab.dialogue import SUPPORTER, Turn
from cso_lab.errors import UserError
from cso_lab.files import read_json
from cso_lab.reporting.markdown import markdown_table
from cso_lab.reporting.rows import NONE
from cso_lab.reporting.tree_labels import (
    DISPREFERRED,
    NEITHER,
    PREFERRED,
    UNEXPANDED,
    UNSCORED,
    add_thresholds,
    marks,
    read_tree,
)
from cso_lab.search.tree import Node, Tree
from cso_lab.strategies import format_reply

# In the paper's words, and in the order in which they are listed.
_LABELS = {
    PREFERRED: "Preferred",
    DISPREFERRED: "Non-Preferred",
    NEITHER: "Neither",
    UNSCORED: "Not scored",
    UNEXPANDED: "Not expanded",
}
_CRITERIA = "EIHS"


def case_study(tree: Tree, node: Node, theta: float, min_end_visits: int, notice: str | None = None) -> str:
    """Markdown of the turn in which `node` (not the root) is one of the strategies. `notice`: what must be said of the players."""
    marked = marks(tree, theta, min_end_visits)
    history = node.parent.history()
    turn = 1 + sum(said.speaker == SUPPORTER and said.strategy is not None for said in history)
    siblings = sorted(node.parent.children, key=lambda child: (list(_LABELS).index(marked[child.id]), -child.n, -child.prior))
    parts = [
        f"## {tree.id}, turn {turn}",
        *([f"> **{notice[:1].upper()}{notice[1:]}.**"] if notice else []),
        markdown_table(["Conversation background", ""], [["Scene", tree.scene], ["Description", tree.description]]),
        markdown_table(["Conversation history", ""], [[said.speaker.capitalize(), _words(said)] for said in history]),
        markdown_table(
            ["Responses", "", "node", "P", "Q", "N", *_CRITERIA],
            [_response(child, marked[child.id]) for child in siblings],
        ),
        f"P: prior; Q: mean reward; N: visits; E, I, H, S: the judge's scores of the turn, 0 to 4. Preferred: on a valid path (eq. 5, "
        f"theta {theta:g}, an end with at least {min_end_visits} visits); non-preferred: beside one, Q below theta (eq. 6).",
    ]
    return "\n\n".join(parts) + "\n"


def gold_turn(tree: Tree, turn: int) -> Node:
    """The node of the `turn`-th (from 1) turn of the gold dialogue; a UserError says how many there are."""
    gold = [node for node in tree.nodes if node.gold and node.parent]
    if not 1 <= turn <= len(gold):
        raise UserError(f"--turn {turn}: the gold dialogue of {tree.id} has turns 1 to {len(gold)}")
    return gold[turn - 1]


def numbered(tree: Tree, node: int) -> Node:
    """The node with this number; a UserError for one that is not there, and for the root, which has no siblings."""
    if not 1 <= node < len(tree.nodes):
        raise UserError(
            f"--node {node}: {tree.id} has nodes 1 to {len(tree.nodes) - 1} (0 is the opening, which has no strategy)"
        )
    return tree.nodes[node]


def _words(said: Turn) -> str:
    return format_reply(said.strategy, said.text) if said.strategy else said.text


def _response(node: Node, mark: str) -> list[str]:
    label = _LABELS[mark] + (" (gold)" if node.gold else "")
    known = mark not in (UNSCORED, UNEXPANDED)
    return [
        label,
        format_reply(node.strategy, node.supporter) if node.expanded else f"({node.strategy})",
        str(node.id),
        f"{node.prior:.2f}",
        f"{node.q:.2f}" if known else NONE,
        str(node.n),
        *(str(node.scores[key]) if node.scores else NONE for key in _CRITERIA),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(prog="python -m cso_lab.reporting.case_study", description="One turn of a tree as Markdown (Table 16).")
    parser.add_argument("tree", type=Path, metavar="TREE.json", help="a file of a search folder's trees/")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--node", type=int, metavar="ID", help="number of any node; report.html shows them")
    which.add_argument("--turn", type=int, metavar="K", help="the K-th turn of the gold dialogue, from 1")
    add_thresholds(parser)
    options = parser.parse_args(arguments)
    tree = read_tree(options.tree)
    node = numbered(tree, options.node) if options.turn is None else gold_turn(tree, options.turn)
    summary = options.tree.resolve().parents[1] / "search.json"
    notice = read_json(summary).get("notice") if summary.exists() else None
    print(case_study(tree, node, options.theta, options.min_end_visits, notice), end="")


if __name__ == "__main__":
    run(main)
