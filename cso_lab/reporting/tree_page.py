"""report.html of a search: every dialogue's tree to unfold in a browser, from a search folder's trees/*.json and search.json.

`python -m cso_lab.reporting.tree_page FOLDER` writes it for any search folder, also one whose search is still under way.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cso_lab.core.commands import Parser, run
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json
from cso_lab.reporting.html.render import render, write_page
from cso_lab.reporting.tree_labels import DISPREFERRED, PREFERRED, UNEXPANDED, add_thresholds, node_labels, read_tree
from cso_lab.search.tree import Node, Tree

# Digits of numbers on the page; more would only make it larger.
_DIGITS = 4


def write_tree_page(folder: Path, theta: float, min_end_visits: int) -> Path:
    """Writes report.html into a search folder and returns its path; `theta` and `min_end_visits` are those of equations 5 and 6.

    Raises UserError if the folder has no trees.
    """
    folder = Path(folder)
    files = sorted((folder / "trees").glob("*.json"))
    if not files:
        raise UserError(f"{folder}: no trees/*.json; give the folder of a search (a run's stages.json names it)")
    summary = read_json(folder / "search.json") if (folder / "search.json").exists() else {}
    trees = [tree_data(read_tree(file), theta, min_end_visits) for file in files]
    page = render(
        "tree_page",
        scripts=("tree.js", "tree_page.js"),
        title=f"Search: {len(files)} dialogue{'' if len(files) == 1 else 's'}",
        players=summary.get("players"),
        notices=[summary["notice"]] if summary.get("notice") else [],
        facts=list(search_facts(summary, trees, theta, min_end_visits)),
        set_aside=summary.get("set_aside") or {},
        dialogues=trees,
    )
    return write_page(page, folder)


def tree_data(tree: Tree, theta: float, min_end_visits: int) -> dict:
    """Returns a tree as the page's script reads it: its strategies once, and one row per node (`FIELDS` in tree_page.js)."""
    labels = node_labels(tree, theta, min_end_visits)
    strategies = sorted({node.strategy for node in tree.nodes if node.strategy})
    rows = []
    for node, label in zip(tree.nodes, labels, strict=True):
        row = [
            node.parent.id if node.parent else None,
            strategies.index(node.strategy) if node.strategy else None,
            round(node.prior, _DIGITS),
            *([] if label == UNEXPANDED else _expanded_fields(node, label)),
        ]
        rows.append(row)
    return {
        "id": tree.id,
        "scene": tree.scene,
        "description": tree.description,
        "counts": {
            "nodes": len(tree.nodes),
            "expanded nodes": len(tree.nodes) - labels.count(UNEXPANDED),
            "valid paths": sum(tree.nodes[i].end for i, label in enumerate(labels) if label == PREFERRED),
            "preferred turns": max(0, labels.count(PREFERRED) - 1),  # the root is no turn
            "dispreferred turns": labels.count(DISPREFERRED),
        },
        "tree": {"strategies": strategies, "rows": rows},
    }


def _expanded_fields(node: Node, label: str) -> list:
    scores = dict(node.scores) if node.scores else None
    return [label, round(node.q, _DIGITS), node.n, int(node.gold), int(node.end), node.supporter, node.seeker, scores]


def search_facts(summary: Mapping, trees: Sequence[dict], theta: float, min_end_visits: int) -> Iterator[tuple[str, str]]:
    """Yields (name, value) of a search: counts, calls, tokens, cost, seconds and thresholds, as far as search.json has them.

    `trees` are the values that `tree_data` returns for its trees.
    """
    if "dialogues" in summary:
        yield "dialogues", f"{len(trees)} of {summary['dialogues']} searched"
    if "iterations_at_most" in summary:
        yield "iterations a dialogue", f"at most {summary['iterations_at_most']}"
    for name in trees[0]["counts"]:
        yield name, f"{sum(dialogue['counts'][name] for dialogue in trees):,}"
    agreement = summary.get("agreement_with_gold") or {}
    if agreement.get("turns"):
        yield "strategist's best is the gold strategy", f"{agreement['agree']} of {agreement['turns']} gold turns"
    usage = [summary.get("usage") or {}, *(summary.get("parts") or {}).values()]
    for role in dict.fromkeys(role for part in usage for role in part.get("calls", {})):
        yield f"calls of the {role}", f"{sum(part.get('calls', {}).get(role, 0) for part in usage):,}"
    tokens = sum(part.get("prompt_tokens", 0) + part.get("completion_tokens", 0) for part in usage)
    if tokens:
        yield "tokens", f"{tokens:,}"
    cost, unpriced = (sum(part.get(name, 0) for part in usage) for name in ("cost", "unpriced"))
    if cost or unpriced:
        yield "cost", f"${cost:,.2f}" + (f" and {unpriced:,} calls without a known price" if unpriced else "")
    if "seconds" in summary:
        yield "seconds", f"{summary['seconds']:,}"
    yield "theta (eq. 5 and 6)", f"{theta:g}"
    yield "visits a valid path's end must have", f"{min_end_visits}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page of the folder on the command line, and prints its path."""
    parser = Parser(prog="python -m cso_lab.reporting.tree_page", description="Write report.html of a search folder.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a search folder: trees/*.json and search.json")
    add_thresholds(parser)
    options: argparse.Namespace = parser.parse_args(arguments)
    print(write_tree_page(options.folder, options.theta, options.min_end_visits))


if __name__ == "__main__":
    run(main)
