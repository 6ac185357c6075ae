"""One turn of a tree as a table, in the form of the paper's Table 16."""

import subprocess
import sys

import pytest
from reporting.trees import hand_made, write_search

from cso_lab.core.errors import UserError
from cso_lab.reporting.case_study import case_study, gold_turn, node_by_id


def table(markdown: str, opening: str) -> list[list[str]]:
    """The rows of the pipe table whose header opens with `opening`, header and rule left out."""
    lines = next(block for block in markdown.split("\n\n") if block.startswith(f"| {opening}")).splitlines()
    return [[field.strip() for field in line.strip("|").split(" | ")] for line in lines[2:]]


def test_siblings_stand_under_one_another_with_their_marks_numbers_and_scores():
    tree = hand_made()
    shown = case_study(tree, tree.nodes[3], 0.5, 2)
    assert table(shown, "Responses") == [
        ["Preferred (gold)", "(A) s-A1", "1", "0.40", "1.00", "100", "–", "–", "–", "–"],
        ["Non-Preferred", "(B) s-B", "3", "0.12", "-0.50", "2", "1", "2", "3", "0"],
        ["Neither", "(E) s-E", "6", "0.30", "0.70", "1", "4", "3", "4", "4"],
        ["Not scored", "(D) s-D", "5", "0.20", "–", "0", "–", "–", "–", "–"],
        ["Not expanded", "(C)", "4", "0.10", "–", "0", "–", "–", "–", "–"],
    ]
    assert table(shown, "Conversation background") == [["Scene", "Work"], ["Description", "I lost my job."]]
    assert table(shown, "Conversation history") == [["Seeker", "k-0"]]


def test_the_history_is_all_that_precedes_the_turn():
    tree = hand_made()
    shown = case_study(tree, gold_turn(tree, 2), 0.5, 2, notice="simulated, mind you")
    assert table(shown, "Conversation history") == [["Seeker", "k-0"], ["Supporter", "(A) s-A1"], ["Seeker", "k-A1"]]
    assert shown.startswith("## d-0001, turn 2\n\n> **Simulated, mind you.**")


def test_bars_and_line_breaks_do_not_break_the_table():
    tree = hand_made()
    tree.nodes[3].supporter = "one | two\nthree"
    (row,) = (line for line in case_study(tree, tree.nodes[3], 0.5, 2).splitlines() if "Non-Preferred" in line)
    assert "(B) one \\| two three" in row and row.count("|") - row.count("\\|") == 11


def test_an_opening_greeting_is_no_turn():
    tree = hand_made()
    tree.root.supporter = "Hello."
    shown = case_study(tree, tree.nodes[1], 0.5, 2)
    assert shown.startswith("## d-0001, turn 1\n")
    assert table(shown, "Conversation history") == [["Supporter", "Hello."], ["Seeker", "k-0"]]


@pytest.mark.parametrize("turn", [0, 3, -1])
def test_a_turn_that_is_not_there_is_named_with_those_that_are(turn):
    with pytest.raises(UserError, match=f"--turn {turn}: .*turns 1 to 2"):
        gold_turn(hand_made(), turn)


@pytest.mark.parametrize("node", [0, 7, -1])
def test_a_node_that_is_not_there_and_the_opening_are_refused(node):
    with pytest.raises(UserError, match=f"--node {node}: .*nodes 1 to 6"):
        node_by_id(hand_made(), node)


def command(*arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "cso_lab.reporting.case_study", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


def test_the_command_prints_the_turn_and_what_must_be_said_of_the_players(tmp_path):
    file = write_search(tmp_path, hand_made()) / "trees" / "d-0001.json"
    by_turn, by_node = command(file, "--turn", 1), command(file, "--node", 6)
    assert by_turn.returncode == by_node.returncode == 0, by_turn.stderr
    assert by_turn.stdout == by_node.stdout  # siblings of one another
    assert "> **Searched with simulated role players, not with language models.**" in by_turn.stdout


def test_wrong_arguments_are_one_line(tmp_path):
    for arguments, expected in (
        ((tmp_path / "no.json", "--turn", 1), "cannot read"),
        ((tmp_path,), "--node --turn is required"),
    ):
        done = command(*arguments)
        assert done.returncode == 2 and expected in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
