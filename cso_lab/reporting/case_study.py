"""One turn of a tree as Markdown, in the form of the paper's Table 16: the setting, the history, and the reply of every strategy.

`python -m cso_lab.reporting.case_study TREE.json --node ID` (any node; its siblings are shown with it), or
`--turn K` for the K-th turn of the gold dialogue.
"""

from collections.abc import Sequence
from pathlib import Path

from cso_lab.core.commands import Parser, run
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json
from cso_lab.core.records import SUPPORTER, Turn
from cso_lab.core.strategies import format_reply
from cso_lab.core.tables import NONE, markdown_table, sentence
from cso_lab.reporting.tree_labels import (
    DISPREFERRED,
    NEITHER,
    PREFERRED,
    UNEXPANDED,
    UNSCORED,
    add_thresholds,
    node_labels,
    read_tree,
)
from cso_lab.search.tree import Node, Tree

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
    """Returns Markdown of the turn that `node` (not the root) and its siblings are replies of.

    `notice` is a warning about the role players, such as that they were simulated.
    """
    labels = node_labels(tree, theta, min_end_visits)
    history = node.parent.history()
    number = 1 + sum(turn.speaker == SUPPORTER and turn.strategy is not None for turn in history)
    siblings = sorted(node.parent.children, key=lambda child: (list(_LABELS).index(labels[child.id]), -child.n, -child.prior))
    parts = [
        f"## {tree.id}, turn {number}",
        *([f"> **{sentence(notice)}**"] if notice else []),
        markdown_table(["Conversation background", ""], [["Scene", tree.scene], ["Description", tree.description]]),
        markdown_table(["Conversation history", ""], [[turn.speaker.capitalize(), _text(turn)] for turn in history]),
        markdown_table(
            ["Responses", "", "node", "P", "Q", "N", *_CRITERIA],
            [_response(child, labels[child.id]) for child in siblings],
        ),
        f"P: prior; Q: mean reward; N: visits; E, I, H, S: the judge's scores of the turn, 0 to 4. Preferred: on a valid path (eq. 5, "
        f"theta {theta:g}, an end with at least {min_end_visits} visits); non-preferred: beside one, Q below theta (eq. 6).",
    ]
    return "\n\n".join(parts) + "\n"


def gold_turn(tree: Tree, turn: int) -> Node:
    """Returns the node of the `turn`-th turn (from 1) of the gold dialogue. Raises UserError if it has no such turn."""
    gold = [node for node in tree.nodes if node.gold and node.parent]
    if not 1 <= turn <= len(gold):
        raise UserError(f"--turn {turn}: the gold dialogue of {tree.id} has turns 1 to {len(gold)}")
    return gold[turn - 1]


def node_by_id(tree: Tree, node: int) -> Node:
    """Returns the node with an id. Raises UserError if there is none, and for the root, which has no siblings."""
    if not 1 <= node < len(tree.nodes):
        raise UserError(
            f"--node {node}: {tree.id} has nodes 1 to {len(tree.nodes) - 1} (0 is the opening, which has no strategy)"
        )
    return tree.nodes[node]


def _text(turn: Turn) -> str:
    return format_reply(turn.strategy, turn.text) if turn.strategy else turn.text


def _response(node: Node, label: str) -> list[str]:
    """Returns the fields of one row: label, reply, node, P, Q, N and the judge's scores."""
    scored = label not in (UNSCORED, UNEXPANDED)
    return [
        _LABELS[label] + (" (gold)" if node.gold else ""),
        format_reply(node.strategy, node.supporter) if node.expanded else f"({node.strategy})",
        str(node.id),
        f"{node.prior:.2f}",
        f"{node.q:.2f}" if scored else NONE,
        str(node.n),
        *(str(node.scores[key]) if node.scores else NONE for key in _CRITERIA),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the turn that the command line names. Raises UserError if there is no such tree or turn."""
    parser = Parser(prog="python -m cso_lab.reporting.case_study", description="One turn of a tree as Markdown (Table 16).")
    parser.add_argument("tree", type=Path, metavar="TREE.json", help="a file of a search folder's trees/")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--node", type=int, metavar="ID", help="number of any node; report.html shows them")
    which.add_argument("--turn", type=int, metavar="K", help="the K-th turn of the gold dialogue, from 1")
    add_thresholds(parser)
    options = parser.parse_args(arguments)
    tree = read_tree(options.tree)
    node = node_by_id(tree, options.node) if options.turn is None else gold_turn(tree, options.turn)
    summary = options.tree.resolve().parents[1] / "search.json"
    notice = read_json(summary).get("notice") if summary.exists() else None
    print(case_study(tree, node, options.theta, options.min_end_visits, notice), end="")


if __name__ == "__main__":
    run(main)
