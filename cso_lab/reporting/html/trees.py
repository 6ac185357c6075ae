"""The searches that the cells rest on: trees to unfold, and whole dialogues of ESC-Pro turn by turn (Table 17)."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from cso_lab.errors import UserError
from cso_lab.reporting.html.charts import Section
from cso_lab.reporting.html.render import PAGE_FILE
from cso_lab.reporting.html.report_data import Material, Run
from cso_lab.reporting.tree_labels import read_tree
from cso_lab.reporting.tree_page import facts, tree_data
from cso_lab.search.paths import valid_paths
from cso_lab.search.tree import Node, Tree

# So much of the trees stands in the page itself; all of them are in the search's own page.
_MOST_CHARACTERS = 3_000_000
_MOST_TREES = 12
_MOST_DIALOGUES = 24


def trees(material: Material) -> Section | None:
    """Of every search its facts and first trees, and the way to its own page."""
    searches = []
    for number, (folder, runs) in enumerate(material.shared_folders("search").items()):
        if found := _read(material, folder, _MOST_TREES):
            searches.append(_search(material, number, folder, runs, found))
    return Section("trees", "The trees", "section_trees", {"searches": searches}) if searches else None


def _search(material: Material, number: int, folder: Path, runs: list[Run], found: list[Tree]) -> dict:
    thresholds = _thresholds(material, runs)
    shown, room = [], _MOST_CHARACTERS
    for tree in found:
        data = tree_data(tree, *thresholds)
        room -= len(json.dumps(data))
        if shown and room < 0:
            break
        shown.append(data)
    summary = material.json(folder / "search.json")
    count = len(_files(folder))
    whole = len(shown) == count
    page = folder / PAGE_FILE
    return {
        "id": f"search{number}",
        "name": folder.name,
        "runs": [run.name for run in runs],
        "players": summary.get("players"),
        "notice": summary.get("notice"),
        # Counts of trees that were left out would be missing from the sums.
        "facts": list(facts(summary, shown, *thresholds)) if whole else [],
        "trees": shown,
        "count": count,
        "page": quote(Path(os.path.relpath(page, material.out)).as_posix()) if page.exists() else None,
    }


def dialogues(material: Material) -> Section | None:
    """Whole dialogues as the search ended them well, with strategy, Q and the judge's scores of each turn; the test dialogues, with
    what each cell chose, are added by the page's script."""
    shown = []
    for folder, runs in material.shared_folders("search").items():
        notice = material.json(folder / "search.json").get("notice")
        for tree in _read(material, folder, _MOST_DIALOGUES - len(shown)):
            if path := _searched_path(tree, *_thresholds(material, runs)):
                shown.append(_whole(tree, path, notice))
    tested = any(material.jsonl(run.folder / "predictions.jsonl") for run in material.measured)
    if not shown and not tested:
        return None
    return Section("dialogue", "A whole dialogue, turn by turn", "section_dialogue", {"searched": shown})


def _searched_path(tree: Tree, theta: float, min_end_visits: int) -> list[Node] | None:
    """The valid path that leaves the gold dialogue earliest, and of these the one with the highest mean Q; gold itself if alone."""

    def rank(path: list[Node]) -> tuple:
        return (sum(not node.gold for node in path), sum(node.q for node in path) / len(path))

    return max(valid_paths(tree, theta, min_end_visits), key=rank, default=None)


def _whole(tree: Tree, path: list[Node], notice: str | None) -> dict:
    """`turns`: [speaker, strategy, text, source, q, scores, emotion]."""
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


def _read(material: Material, folder: Path, most: int) -> list[Tree]:
    """The first `most` trees of a search that can be read."""
    found = []
    for file in _files(folder)[:most]:
        try:
            found.append(read_tree(file))
        except UserError as error:
            material.problem(str(file), str(error))
    return found


def _thresholds(material: Material, runs: list[Run]) -> tuple[float, int]:
    """theta and the visits of eq. 5 and 6, as the runs' configuration has them."""
    node: Mapping = {}
    for run in runs:
        node = node or material.config(run).get("preferences") or {}
    return float(node.get("theta", 0.5)), int(node.get("min_end_visits", 2))
