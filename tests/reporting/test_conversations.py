"""Conversations in a report: a row a cell, the references last, and differences on the same seekers."""

import json

import pytest
from conversations import PLAN, STRATEGIES, VALIDATE, written
from fakes import metrics

from cso_lab.evaluation.conversations import measure
from cso_lab.reporting.report import write_and_print, write_report


def leave(folder, algo="base", reference=None, relieved=2, harm=(), **cell):
    """A run folder with the conversations of four seekers, of whom `relieved` were helped."""
    held = [
        written(n, ("open", "guarded")[n % 2], [(PLAN, "Well.", 3.0, None, harm), (VALIDATE, "So.", 2.0, None, ())], "relieved")
        if n <= relieved
        else written(n, ("open", "guarded")[n % 2], [(PLAN, "Well.", 9.0, None, ())], "hurt")
        for n in range(1, 5)
    ]
    described = metrics(algo=algo, **cell)["cell"] | {"reference": reference, "varied": {}}
    values = {"cell": described, **measure(held, STRATEGIES.names, 3), "context": {"notices": ["seekers are simulated"]}}
    folder.mkdir(parents=True)
    (folder / "conversation_metrics.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.fixture
def folders(tmp_path):
    return [
        leave(tmp_path / "gold", reference="gold", relieved=4),
        leave(tmp_path / "base", relieved=0),
        leave(tmp_path / "dpo", algo="dpo", relieved=3, harm=("blame",)),
    ]


def test_cells_that_only_held_conversations_are_a_report(folders, tmp_path, capsys):
    assert write_and_print(folders, tmp_path, "talks", None)
    printed = capsys.readouterr().out
    assert "no numbers" not in printed and "not run" not in printed
    assert printed.index("SmolLM2-135M-Instruct, base") < printed.index("reference: gold supporter replayed")


def test_the_report_has_results_differences_personas_and_every_harmful_reply(folders, tmp_path):
    text = write_report(folders, tmp_path, "talks").read_text(encoding="utf-8")
    assert "> **Seekers are simulated.**" in text
    results, differences, personas, harm = text.split("## Conversations")[1].split("\n### ")
    rows = [line for line in results.splitlines() if line.startswith("| ")]
    assert "| 75.00 [25.00, 100.00] |" in next(row for row in rows if "CSO-DPO" in row)
    assert "3 / 1 / 0 / 0" in next(row for row in rows if "CSO-DPO" in row)
    less_base = next(line for line in differences.splitlines() if "CSO-DPO" in line and ", base |" in line)
    assert "| **+75.00 [+25.00, +100.00]** |" in less_base
    assert sum("reference: gold" in line for line in differences.splitlines()) == 2
    assert "| Cell | guarded | open |" in personas
    assert harm.count("seeker 1, turn 1, blame") == 1 and "CSO-DPO: 3 (blame 3)" in harm
    lines = (tmp_path / "conversations.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4 and "success,success_low,success_high" in lines[0]


def test_rows_of_one_name_are_told_apart(tmp_path):
    folders = [leave(tmp_path / f"dpo{seed}", algo="dpo", seed=seed) for seed in (0, 1)]
    text = write_report(folders, tmp_path, "talks").read_text(encoding="utf-8")
    assert "CSO-DPO [seed 0] |" in text and "CSO-DPO [seed 1] |" in text


def test_a_damaged_file_is_named_and_stops_nothing(folders, tmp_path):
    (folders[1] / "conversation_metrics.json").write_text("{", encoding="utf-8")
    text = write_report(folders, tmp_path, "talks").read_text(encoding="utf-8")
    assert "base/conversation_metrics.json: not valid JSON" in text and "CSO-DPO" in text
