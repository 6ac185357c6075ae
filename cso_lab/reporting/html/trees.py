"""The searches that the runs used: trees to unfold, and whole dialogues of ESC-Pro turn by turn (Table 17)."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from cso_lab.core.errors import UserError
from cso_lab.reporting.html.charts import Section
from cso_lab.reporting.html.render import PAGE_FILE
from cso_lab.reporting.html.report_data import ReportData, Run
from cso_lab.reporting.tree_labels import read_tree
from cso_lab.reporting.tree_page import search_facts, tree_data
from cso_lab.search.paths import valid_paths
from cso_lab.search.tree import Node, Tree

# The page holds at most so much of the trees; the search's own page holds all of them.
_MOST_CHARACTERS = 3_000_000
_MOST_TREES = 12
_MOST_DIALOGUES = 24


def trees(report: ReportData) -> Section | None:
    """Returns every search with its facts, its first trees and a link to its own page; None without searches."""
    searches = []
    for number, (folder, runs) in enumerate(report.shared_folders("search").items()):
        if first_trees := _read(report, folder, _MOST_TREES):
            searches.append(_search(report, number, folder, runs, first_trees))
    return Section("trees", "The trees", "section_trees", {"searches": searches}) if searches else None


def _search(report: ReportData, number: int, folder: Path, runs: list[Run], trees: list[Tree]) -> dict:
    thresholds = _thresholds(report, runs)
    data_of_trees, room = [], _MOST_CHARACTERS
    for tree in trees:
        data = tree_data(tree, *thresholds)
        room -= len(json.dumps(data))
        if data_of_trees and room < 0:
            break
        data_of_trees.append(data)
    summary = report.json(folder / "search.json")
    count = len(_files(folder))
    complete = len(data_of_trees) == count
    page = folder / PAGE_FILE
    return {
        "id": f"search{number}",
        "name": folder.name,
        "runs": [run.name for run in runs],
        "players": summary.get("players"),
        "notice": summary.get("notice"),
        # Sums over some of the trees would be wrong.
        "facts": list(search_facts(summary, data_of_trees, *thresholds)) if complete else [],
        "trees": data_of_trees,
        "count": count,
        "page": quote(Path(os.path.relpath(page, report.out)).as_posix()) if page.exists() else None,
    }


def dialogues(report: ReportData) -> Section | None:
    """Returns whole dialogues, each a valid path of a search, with strategy, Q and the judge's scores of every turn.

    The page's script adds the test dialogues with each run's predictions. None if there are neither.
    """
    searched = []
    for folder, runs in report.shared_folders("search").items():
        notice = report.json(folder / "search.json").get("notice")
        for tree in _read(report, folder, _MOST_DIALOGUES - len(searched)):
            if path := _searched_path(tree, *_thresholds(report, runs)):
                searched.append(_dialogue(tree, path, notice))
    tested = any(report.jsonl(run.folder / "predictions.jsonl") for run in report.measured)
    if not searched and not tested:
        return None
    return Section("dialogue", "A whole dialogue, turn by turn", "section_dialogue", {"searched": searched})


def _searched_path(tree: Tree, theta: float, min_end_visits: int) -> list[Node] | None:
    """Returns the valid path (eq. 5) with the most turns outside the gold dialogue, of several the one with the highest mean Q."""

    def rank(path: list[Node]) -> tuple:
        return (sum(not node.gold for node in path), sum(node.q for node in path) / len(path))

    return max(valid_paths(tree, theta, min_end_visits), key=rank, default=None)


def _dialogue(tree: Tree, path: list[Node], notice: str | None) -> dict:
    """Returns a dialogue as the page's script reads it; a turn is [speaker, strategy, text, source, Q, scores]."""
    rows = []
    for node in path:
        source = "corpus" if node.gold or node.parent is None else "search"
        if node.supporter is not None:
            scores = dict(node.scores) if node.scores else None
            rows.append(["supporter", node.strategy, node.supporter, source, round(node.q, 2), scores])
        if node.seeker is not None:
            rows.append(["seeker", None, node.seeker, source, None, None])
    return {"id": tree.id, "scene": tree.scene, "description": tree.description, "notice": notice, "turns": rows}


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "trees").glob("*.json"))


def _read(report: ReportData, folder: Path, most: int) -> list[Tree]:
    """Returns those of the first `most` trees of a search that can be read."""
    trees = []
    for file in _files(folder)[:most]:
        try:
            trees.append(read_tree(file))
        except UserError as error:
            report.add_problem(str(file), str(error))
    return trees


def _thresholds(report: ReportData, runs: list[Run]) -> tuple[float, int]:
    """Returns theta and min_end_visits (eq. 5 and 6) of the runs' configuration."""
    node: Mapping = {}
    for run in runs:
        node = node or report.config(run).get("preferences") or {}
    return float(node.get("theta", 0.5)), int(node.get("min_end_visits", 2))
