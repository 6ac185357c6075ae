import csv
import io
import json

from rich.console import Console

from cso_lab.core.tables import markdown_table
from cso_lab.reporting.html.page import write_report_page
from cso_lab.reporting.report import print_report, write_report

NOTICE = "searched with simulated role players, not with language models"


def test_the_report_says_what_was_run_and_what_failed(cell, tmp_path):
    searched = {"roles": "simulated", "roles_notice": NOTICE, "mcts": "quick", "training_rows": 128}
    folders = [cell("base", algo="base", q=5.0)]
    folders += [cell(f"dpo{seed}", seed=seed, q=q, context=searched) for seed, q in enumerate([20, 21, 25])]
    folders.append(cell("sft", algo="sft"))
    (folders[-1] / "failed.json").write_text('{"reason": "loss | is\\nnot finite"}')
    path = write_report(folders, tmp_path / "out", "demo", notes=["trained in 3 minutes"])
    assert path == tmp_path / "out" / "report.md"
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0] == "# demo"
    assert lines[2] == "> **Searched with simulated role players, not with language models.**"
    for line in (
        "- model: SmolLM2-135M-Instruct",
        "- data: sample",
        "- test turns: 210",
        "- players of the search: simulated",
        "- search: quick",
        "- training rows: 128",
        "- decoding: plain",
        "- form of replies: a reply must open with one of the strategies "
        "(generation.constrain=format; the paper's cells use none)",
        "- seeds: 0, 1, 2",
        "| SmolLM2-135M-Instruct | – | base | 5.00 | 1.00 | 30.00 | 15.50 | 210 | 4 | – |",
        "| SmolLM2-135M-Instruct | LoRA | CSO-DPO | 22.00 ± 2.65 | 1.00 ± 0.00 | 30.00 ± 0.00 | 15.50 ± 0.00 | 210 | 4 | 3 |",
        "| SmolLM2-135M-Instruct, base | – | 5.00 [2.00, 8.00] | 1.00 [0.50, 2.65] |",
        "| SmolLM2-135M-Instruct, LoRA, CSO-DPO | 2 | 25.00 [22.00, 28.00] | 1.00 [0.50, 2.65] |",
        "| Cell | Affirmation | Share Information |",
        "| SmolLM2-135M-Instruct, base | 40.00 | 0.00* |",
        "- SmolLM2-135M-Instruct, base never predicts Share Information",
        "| sft | loss \\| is not finite |",
        "- trained in 3 minutes",
    ):
        assert line in lines, line
    assert "SFT |" not in text
    assert "as published" not in text


def test_cut_replies_have_a_column_where_there_are_any(cell, tmp_path):
    folders = [cell("base", algo="base"), cell("dpo")]
    metrics = json.loads((folders[1] / "metrics.json").read_text())
    (folders[1] / "metrics.json").write_text(json.dumps(metrics | {"cut": 7}))
    write_report(folders, tmp_path / "some", "demo")
    text = (tmp_path / "some" / "report.md").read_text(encoding="utf-8")
    assert "| n | unparsed | cut | seeds |" in text and "cut: replies that ended at the limit of tokens" in text
    assert "| 210 | 4 | 0 | – |" in text and "| 210 | 4 | 7 | 1 |" in text
    rows = csv.DictReader(io.StringIO((tmp_path / "some" / "report.csv").read_text(encoding="utf-8")))
    assert [row["cut"] for row in rows] == ["0", "7"]
    write_report(folders[:1], tmp_path / "none", "demo")
    assert "cut" not in (tmp_path / "none" / "report.md").read_text(encoding="utf-8")


def test_a_report_of_nothing_but_failures_is_written_all_the_same(tmp_path):
    path = write_report([tmp_path / "gone"], tmp_path, "demo")
    assert "| gone | missing: the cell left no metrics.json |" in path.read_text(encoding="utf-8")
    assert "## Results" not in path.read_text(encoding="utf-8")


def test_the_csv_has_one_line_a_cell_and_seed_in_plain_numbers(cell, tmp_path):
    write_report([cell("b", seed=1, q=20.125), cell("a", seed=0, q=1 / 3)], tmp_path, "demo")
    first, second = csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text(encoding="utf-8")))
    assert (first["seed"], second["seed"]) == ("0", "1")
    assert float(first["Q"]) == 1 / 3
    expected = {"backbone": "smollm2", "algo": "dpo", "mode": "lora", "Q": "20.125", "n": "210", "Q_low": "17.125"}
    expected |= {"unparsed": "4", "F1 Affirmation": "40.0", "data": "sample", "constrain": "format", "folder": "b"}
    assert {key: second[key] for key in expected} == expected
    assert not [column for column in first if "paper" in column]


def test_the_csv_has_the_papers_values_where_there_are_any(cell, tmp_path):
    write_report([cell("b"), cell("a", backbone="llama")], tmp_path, "demo")
    llama, smollm2 = csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text(encoding="utf-8")))
    assert (llama["Q_paper"], llama["R-L_paper"], smollm2["Q_paper"]) == ("34.51", "23.89", "")


def test_the_report_says_why_another_model_has_no_published_value(cell, tmp_path):
    """Also on the terminal; a model the paper knows nothing of needs no such note."""
    other = {"path": "org/Other"}
    folders = [cell("a", backbone="llama", context=other), cell("b", context=other), cell("c", backbone="llama", algo="sft")]
    text = write_report(folders, tmp_path, "demo").read_text(encoding="utf-8")
    note = (
        "backbone=llama was loaded from org/Other, which need not be the LLaMA-3.1-8B-Instruct of the paper: "
        "no published value stands beside it."
    )
    assert text.split("## Notes\n\n")[1] == f"- {note}\n"
    models = "LLaMA-3.1-8B-Instruct, org/Other"
    assert f"- model: {models}\n" in text
    lines = {row["folder"]: row for row in csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text(encoding="utf-8")))}
    assert {name: (line["path"], line["Q_paper"]) for name, line in lines.items()} == {
        "a": ("org/Other", ""),
        "b": ("org/Other", ""),
        "c": ("", "31.25"),
    }
    screen = io.StringIO()
    print_report(folders, tmp_path / "report.md", console=Console(file=screen))
    assert screen.getvalue().count(note) == 1


def test_the_report_names_the_values_that_were_given(cell, tmp_path):
    folders = [cell(rate, variant=rate, varied={"training.learning_rate": rate}) for rate in ("1e-5", "1e-4")]
    lines = write_report(folders, tmp_path, "demo").read_text(encoding="utf-8").splitlines()
    assert "- training.learning_rate: 1e-4, 1e-5" in lines
    assert [line.split(" | ")[2] for line in lines if "| LoRA |" in line] == [
        "CSO-DPO [training.learning_rate=1e-4]",
        "CSO-DPO [training.learning_rate=1e-5]",
    ]
    rows = csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text(encoding="utf-8")))
    assert [row["training.learning_rate"] for row in rows] == ["1e-4", "1e-5"]


def test_the_terminal_shows_the_main_table_and_where_the_report_lies(cell, tmp_path):
    context = {"roles_notice": NOTICE}
    screen = io.StringIO()
    folders = [cell("1", algo="base"), cell("2", context=context), tmp_path / "gone"]
    print_report(folders, tmp_path / "report.md", "demo", console=Console(file=screen))
    text = screen.getvalue()
    assert "demo: SmolLM2-135M-Instruct" in text
    assert [part.strip() for part in next(line for line in text.splitlines() if "CSO-DPO" in line).split("│")[1:-1]] == [
        *("LoRA", "CSO-DPO", "20.00", "1.00", "30.00", "15.50", "210", "4", "1")
    ]
    assert NOTICE in text
    assert "gone: missing: the cell left no metrics.json" in text
    assert text.splitlines()[-1] == f"report: {tmp_path / 'report.md'}"


def test_bars_do_not_break_a_markdown_table():
    assert markdown_table(["a"], [["x|y\nz"]]) == "| a |\n| --- |\n| x\\|y z |"


def test_further_metrics_of_the_texts_stand_where_a_cell_has_them(cell, tmp_path):
    folders = [cell("base", algo="base"), cell("dpo0", seed=0), cell("dpo1", seed=1)]
    for folder, value in zip(folders[1:], (2.0, 3.0), strict=True):
        path = folder / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"text": {"BLEU-4": value, "words": 12.0}}))
    lines = write_report(folders, tmp_path, "demo").read_text(encoding="utf-8").splitlines()
    assert "| Row | BLEU-4 | words |" in lines and "| SmolLM2-135M-Instruct, LoRA, CSO-DPO | 2.50 | 12.00 |" in lines
    records = list(csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text(encoding="utf-8"))))
    assert [record["BLEU-4"] for record in records] == ["", "2.0", "3.0"]
    page = write_report_page(folders, tmp_path, "demo").read_text(encoding="utf-8")
    assert "<h2>Text metrics" in page or 'id="text-metrics"' in page
    assert "Text metrics" not in write_report(folders[:1], tmp_path, "demo").read_text(encoding="utf-8")
