import json

import pytest

from cso_lab.core.errors import UserError
from cso_lab.reporting.cells import load_cells, read_cells


def test_a_cell_is_read_from_metrics_json_alone(cell):
    (read,) = read_cells([cell("a", seed=2, q=21.25)])
    assert (read.backbone, read.algo, read.mode, read.seed, read.n, read.unparsed) == ("smollm2", "dpo", "lora", 2, 210, 4)
    assert read.scores == {"Q": 21.25, "B": 1.0, "Q_W": 30.0, "R-L": 15.5}
    assert read.context["data"] == "sample"


def test_scores_without_cell_and_context_are_a_base_cell_named_by_its_folder(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"Q": 1, "B": 0.0, "Q_W": 2.0, "R-L": 3.0, "n": 5}))
    (read,) = read_cells([tmp_path])
    assert (read.label, read.algo, read.seed, read.unparsed, read.strategies) == (tmp_path.name, "base", None, None, {})


def test_a_folder_given_twice_counts_once(cell):
    folder = cell("a")
    assert len(read_cells([folder, folder / ".." / "a"])) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected a JSON object, found list"),
        ('{"Q": 1, "B": 1, "Q_W": 1, "n": 3}', "'R-L' is None: expected a finite number"),
        ('{"Q": NaN, "B": 1, "Q_W": 1, "R-L": 1, "n": 3}', "'Q' is nan: expected a finite number"),
        ('{"Q": 1, "B": 1, "Q_W": 1, "R-L": 1, "n": "3"}', "'n' is '3': expected a count"),
        ('{"Q": 1, "B": 1, "Q_W": 1, "R-L": 1, "n": 3, "cell": 7}', "'cell' is 7: expected an object"),
        ('{"Q": 1, "B": 1, "Q_W": 1, "R-L": 1, "n": 3, "intervals": {"Q": [1]}}', r"interval of 'Q' is \[1\]"),
        ('{"Q": 1, "B": 1, "Q_W": 1, "R-L": 1, "n": 3, "strategies": {"Affirmation": {}}}', "'f1' is None"),
    ],
)
def test_a_damaged_metrics_file_is_a_user_error_with_its_path(tmp_path, text, said):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_cells([tmp_path])
    assert str(tmp_path / "metrics.json") in str(caught.value)
    assert [str(caught.value)] == [missing.reason for missing in load_cells([tmp_path])[1]]


def test_failed_missing_and_present_cells_are_told_apart(cell, tmp_path):
    good, failed, silent = cell("good"), cell("failed"), tmp_path / "silent"
    (failed / "failed.json").write_text('{"reason": "no such file: x.json"}')  # its metrics.json is of an earlier run
    cells, missing = load_cells([good, failed, silent])
    assert [c.folder for c in cells] == [good]
    assert [(a.folder, a.reason) for a in missing] == [
        (failed, "no such file: x.json"),
        (silent, "missing: the cell left no metrics.json"),
    ]


def test_counts_of_rows_that_came_to_nothing_are_not_said(cell):
    (read,) = read_cells([cell("a", context={"training_rows": {"read": 9, "used": 0, "shortened": 0, "prompt_too_long": 9}})])
    assert read.context_value("training_rows") == "read=9, used=0, prompt_too_long=9"
