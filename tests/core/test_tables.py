"""Tables and the numbers in them: ours beside the paper's, as Markdown, for the terminal and as CSV."""

import csv
import io

import pytest
from rich.console import Console

from cso_lab.core.tables import NONE, Table, Value, sentence, terminal


@pytest.mark.parametrize(
    ("ours", "paper", "expected"),
    [
        (3.5, 4.0, Value("3.50", "", "4.00", "\u22120.50")),
        (4, 3, Value("4", "", "3", "+1")),
        (None, 3.0, Value(NONE, "", "3.00", "")),
        (1234, None, Value("1,234")),
    ],
)
def test_a_value_stands_beside_the_papers_with_the_difference(ours, paper, expected):
    assert Value.of(ours, paper) == expected


def test_a_value_as_text_has_its_note_and_the_paper_in_the_given_form():
    value = Value.of(0.5, 0.25, "0.4 to 0.6")
    assert value.text("; {}") == "0.50 (0.4 to 0.6); paper 0.25, +0.25"
    assert Value.of(0.5).text("; {}") == "0.50"


def test_one_table_is_markdown_a_grid_and_csv():
    table = Table("A [title]", ["name", "Q"], [["a|b\nc", Value.of(1.0, 2.0)], ["d", "5"]])
    assert table.markdown().splitlines() == [
        "| name | Q |",
        "| --- | --- |",
        "| a\\|b c | 1.00 (paper 2.00, \u22121.00) |",
        "| d | 5 |",
    ]
    screen = io.StringIO()
    terminal(Console(file=screen, width=40)).print(table.grid())
    text = screen.getvalue()
    assert text.startswith("A [title]") and "paper 2.00, \u22121.00" in text and "│ 1.00 │" not in text
    assert [part.strip() for part in text.splitlines()[-2].split("│")[1:-1]] == ["d", "5"]


def test_csv_keeps_numbers_as_they_are_and_leaves_missing_fields_empty():
    text = Table("", ["a", "b", "c"], [[1 / 3, 210, None], ['x,"y"', True, ""]]).csv()
    assert list(csv.reader(io.StringIO(text))) == [["a", "b", "c"], [str(1 / 3), "210", ""], ['x,"y"', "True", ""]]
    assert "\r" not in text


def test_output_that_is_no_terminal_is_wide_enough_for_tables():
    assert terminal(Console(file=io.StringIO(), width=80)).width == 200
    assert terminal(Console(file=io.StringIO(), width=80, force_terminal=True)).width == 80


def test_a_notice_becomes_a_sentence():
    assert sentence("searched with simulated players.") == "Searched with simulated players."
