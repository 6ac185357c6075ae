"""The page of a search: every dialogue's tree to unfold in a browser, from a search folder's trees/*.json and search.json.

`python -m cso_lab.reporting.tree_page FOLDER` writes it for any search folder, also one whose search is still under way.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cso_lab.command import Parser, run
from cso_lab.errors import UserError
from cso_lab.files import read_json
from cso_lab.reporting.html.render import render, write_page
from cso_lab.reporting.tree_labels import DISPREFERRED, PREFERRED, UNEXPANDED, add_thresholds, marks, read_tree
from cso_lab.search.tree import Node, Tree

# Digits that are shown; more would only make the page larger.
_DIGITS = 4


def write_tree_page(folder: Path, theta: float, min_end_visits: int) -> Path:
    """Write report.html into a search folder; returns its path. `theta`, `min_end_visits`: those of eq. 5 and 6."""
    folder = Path(folder)
    files = sorted((folder / "trees").glob("*.json"))
    if not files:
        raise UserError(f"{folder}: no trees/*.json; give the folder of a search (a run's stages.json names it)")
    summary = read_json(folder / "search.json") if (folder / "search.json").exists() else {}
    shown = [tree_data(read_tree(file), theta, min_end_visits) for file in files]
    page = render(
        "tree_page",
        scripts=("tree.js", "tree_page.js"),
        title=f"Search: {len(files)} dialogue{'' if len(files) == 1 else 's'}",
        players=summary.get("players"),
        notices=[summary["notice"]] if summary.get("notice") else [],
        facts=list(facts(summary, shown, theta, min_end_visits)),
        set_aside=summary.get("set_aside") or {},
        dialogues=shown,
    )
    return write_page(page, folder)


def tree_data(tree: Tree, theta: float, min_end_visits: int) -> dict:
    """A tree as the page's script reads it: its strategies once, and one row a node (`FIELDS` in tree_page.js)."""
    marked = marks(tree, theta, min_end_visits)
    strategies = sorted({node.strategy for node in tree.nodes if node.strategy})
    rows = []
    for node, mark in zip(tree.nodes, marked, strict=True):
        row = [
            node.parent.id if node.parent else None,
            strategies.index(node.strategy) if node.strategy else None,
            round(node.prior, _DIGITS),
            *([] if mark == UNEXPANDED else _grown(node, mark)),
        ]
        rows.append(row)
    return {
        "id": tree.id,
        "scene": tree.scene,
        "description": tree.description,
        "counts": {
            "nodes": len(tree.nodes),
            "expanded nodes": len(tree.nodes) - marked.count(UNEXPANDED),
            "valid paths": sum(tree.nodes[i].end for i, mark in enumerate(marked) if mark == PREFERRED),
            "preferred turns": max(0, marked.count(PREFERRED) - 1),  # the root is no turn
            "dispreferred turns": marked.count(DISPREFERRED),
        },
        "tree": {"strategies": strategies, "rows": rows},
    }


def _grown(node: Node, mark: str) -> list:
    scores = dict(node.scores) if node.scores else None
    return [mark, round(node.q, _DIGITS), node.n, int(node.gold), int(node.end), node.supporter, node.seeker, scores]


def facts(summary: Mapping, shown: Sequence[dict], theta: float, min_end_visits: int) -> Iterator[tuple[str, str]]:
    """(name, value) of what a reader wants to know of the search; what search.json does not tell is left out."""
    if "dialogues" in summary:
        yield "dialogues", f"{len(shown)} of {summary['dialogues']} searched"
    if "iterations_at_most" in summary:
        yield "iterations a dialogue", f"at most {summary['iterations_at_most']}"
    for name in shown[0]["counts"]:
        yield name, f"{sum(dialogue['counts'][name] for dialogue in shown):,}"
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
    parser = Parser(prog="python -m cso_lab.reporting.tree_page", description="Write report.html of a search folder.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a search folder: trees/*.json and search.json")
    add_thresholds(parser)
    options: argparse.Namespace = parser.parse_args(arguments)
    print(write_tree_page(options.folder, options.theta, options.min_end_visits))


if __name__ == "__main__":
    run(main)
