"""The page of a search: what its data say of a hand-made tree, and that no text of a dialogue can break out of them."""

import json
import re
import subprocess
import sys

import pytest
from reporting.trees import HOSTILE, hand_made, write_search

from cso_lab.core.errors import UserError
from cso_lab.core.files import write_json
from cso_lab.reporting.tree_labels import DISPREFERRED, NEITHER, PREFERRED, UNEXPANDED, UNSCORED, node_labels, read_tree
from cso_lab.reporting.tree_page import write_tree_page

THETA, VISITS = 0.5, 2


def embedded(page: str) -> list[dict]:
    """What the page's script would parse, dialogue by dialogue."""
    return [json.loads(text) for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)]


def page_of(folder) -> str:
    return write_tree_page(folder, THETA, VISITS).read_text(encoding="utf-8")


def test_marks_are_equations_5_and_6():
    # 0 - A1 - A2(end): a valid path. Beside A1: B low, C unexpanded, D expanded but never scored, E scored above theta.
    assert node_labels(hand_made(), THETA, VISITS) == [
        *(PREFERRED, PREFERRED, PREFERRED),
        *(DISPREFERRED, UNEXPANDED, UNSCORED, NEITHER),
    ]


def test_without_a_valid_path_nothing_is_preferred_or_dispreferred():
    assert set(node_labels(hand_made(), THETA, min_end_visits=101)) == {NEITHER, UNSCORED, UNEXPANDED}


def test_the_page_holds_every_node_with_its_numbers_and_texts(tmp_path):
    (tree,) = embedded(page_of(write_search(tmp_path, hand_made())))
    assert tree["strategies"] == ["A", "B", "C", "D", "E"]
    rows = tree["rows"]
    assert len(rows) == 7
    assert rows[1] == [0, 0, 0.4, "preferred", 1.0, 100, 1, 0, "s-A1", "k-A1", None]
    assert rows[3] == [0, 1, 0.1235, "dispreferred", -0.5, 2, 0, 0, "s-B", "k-B", {"E": 1, "I": 2, "H": 3, "S": 0}]
    assert rows[4] == [0, 2, 0.1]  # not expanded: nothing but its place, strategy and prior


def test_the_page_says_what_the_search_was_and_that_its_players_were_simulated(tmp_path):
    page = page_of(write_search(tmp_path, hand_made()))
    assert "Searched with simulated role players, not with language models." in page
    assert 'data-players="simulated"' in page
    counts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert counts["preferred turns"] == "2" and counts["dispreferred turns"] == "1" and counts["valid paths"] == "1"
    assert counts["calls of the judge"] == "1,234" and counts["tokens"] == "30"
    assert "cost" not in counts  # nothing was paid and nothing is unpriced


def test_calls_that_parts_of_the_search_made_are_counted_too(tmp_path):
    page = page_of(write_search(tmp_path, hand_made(), parts={"1/2": {"calls": {"judge": 6}, "unpriced": 6}}))
    counts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert counts["calls of the judge"] == "1,240"
    assert counts["cost"] == "$0.00 and 6 calls without a known price"


def test_no_text_breaks_out_of_the_page(tmp_path):
    tree = hand_made()
    tree.scene = tree.description = tree.nodes[1].supporter = tree.nodes[1].seeker = HOSTILE
    page = page_of(write_search(tmp_path, tree, set_aside={HOSTILE: HOSTILE}))
    (data,) = embedded(page)
    assert data["rows"][1][8] == HOSTILE
    assert "<img" not in page and HOSTILE not in page
    assert page.count("<script") == 3 and page.count("</script>") == 3  # the page's two and the tree's data


def test_an_older_page_is_replaced_and_a_search_under_way_has_one_too(tmp_path):
    folder = write_search(tmp_path, hand_made())
    (folder / "report.html").write_text("old")
    (folder / "search.json").unlink()
    assert "s-A1" in page_of(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "trees"]


def test_folders_and_files_that_hold_no_tree_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no trees/\*\.json"):
        write_tree_page(tmp_path, THETA, VISITS)
    for number, value in enumerate(
        ([], {"nodes": [{"id": 0}]}, {"id": "x", "scene": "", "description": "", "nodes": [{"parent": 3}]})
    ):
        write_json(tmp_path / f"{number}.json", value)
        with pytest.raises(UserError, match=f"{number}.json: not a tree"):
            read_tree(tmp_path / f"{number}.json")


def test_the_command_takes_the_papers_theta_unless_told_otherwise(tmp_path):
    folder = write_search(tmp_path, hand_made())

    def theta(*arguments: str) -> str:
        line = [sys.executable, "-m", "cso_lab.reporting.tree_page", str(folder), *arguments]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == str(folder / "report.html"), done.stderr
        return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", (folder / "report.html").read_text()))["theta (eq. 5 and 6)"]

    assert theta() == "0.5"
    assert theta("--theta", "0.25") == "0.25"
