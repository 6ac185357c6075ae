"""Ours beside the paper's: marks where the model is the same, columns of their own where it is another, and what is real."""

import csv
import io

import pytest
from rich.console import Console

from cso_lab.reporting.cells import read_cells
from cso_lab.reporting.comparison import BETTER, WITHIN, WORSE, api_models_not_run, verdict
from cso_lab.reporting.report import print_report, write_report
from cso_lab.reporting.results_table import ResultsTable
from cso_lab.reporting.rows import table_rows
from cso_lab.reporting.significance import compare_rows

EXTES = {"data": "extes", "constrain": "none"}


def rows_of(*folders, table=None):
    return table_rows(read_cells(folders), table)


def text_of(rows, table=None) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main table."""
    text = ResultsTable(rows, table).text()
    return text.header, text.rows


@pytest.mark.parametrize(
    ("metric", "value", "bounds", "expected"),
    [  # the paper's LLaMA, LoRA, CSO-DPO: Q 34.51, B 1.11
        ("Q", 40.0, [36.0, 44.0], BETTER),
        ("Q", 33.0, [29.0, 37.0], WITHIN),
        ("Q", 20.0, [16.0, 24.0], WORSE),
        ("B", 0.5, [0.3, 0.7], BETTER),
        ("B", 1.0, [0.9, 1.2], WITHIN),
        ("B", 2.0, [1.5, 2.65], WORSE),
    ],
)
def test_a_mark_says_whether_ours_is_better_than_within_or_worse(cell, metric, value, bounds, expected):
    given = {metric.lower(): value}
    folder = cell("a", backbone="llama", context=EXTES, intervals={metric: bounds}, **given)
    (row,) = rows_of(folder)
    assert verdict(row, metric) == expected
    header, (line,) = text_of([row])
    assert line[header.index(f"{metric} {'↓' if metric == 'B' else '↑'}") + 1].endswith(expected)


def test_several_seeds_are_within_by_interval_or_deviation_whichever_is_wider(cell):
    narrow = {"backbone": "llama", "context": EXTES, "intervals": {"Q": [30.0, 30.0]}}
    # By hand: mean 30, deviation sqrt((36 + 0 + 36) / 2) = 6, so 24 to 36 holds 34.51; 29 and 31 deviate by 1.41, which does not.
    (row,) = rows_of(*(cell(f"a{q}", q=q, seed=n, **narrow) for n, q in enumerate((24.0, 30.0, 36.0))))
    assert verdict(row, "Q") == WITHIN
    (row,) = rows_of(*(cell(f"b{q}", q=q, seed=n, **narrow) for n, q in enumerate((29.0, 31.0))))
    assert verdict(row, "Q") == WORSE
    wide = narrow | {"intervals": {"Q": [20.0, 40.0]}}
    (row,) = rows_of(*(cell(f"c{q}", q=q, seed=n, **wide) for n, q in enumerate((29.0, 31.0))))
    assert verdict(row, "Q") == WITHIN


def test_no_mark_without_an_interval_on_other_dialogues_or_for_another_model(cell):
    rows = rows_of(
        cell("a", backbone="llama", context=EXTES, intervals={}),
        cell("b", backbone="llama", algo="sft", context={"data": "sample"}),
        cell("c", context=EXTES),
        cell("d", backbone="llama", algo="kto", context=EXTES | {"path": "org/Other"}),
        table="9",
    )
    assert {verdict(row, metric) for row in rows for metric in ("Q", "B")} == {""}


def test_another_model_stands_beside_the_papers_in_a_column_that_names_it(cell, tmp_path):
    folders = [cell("a", backbone="tiny_llama", family="llama", algo="base"), cell("b", backbone="tiny_llama", family="llama")]
    header, (base, dpo) = text_of(rows_of(*folders, table="9"), "9")
    assert "paper" not in header
    assert header[-1] == "LLaMA-3.1-8B-Instruct (paper): Q / B / Q_W / R-L"
    assert (base[-1], dpo[-1]) == ("29.79 / 1.18 / 38.78 / 23.48", "34.51 / 1.11 / 41.11 / 23.89")
    text = write_report(folders, tmp_path, "Table 9", table="9").read_text(encoding="utf-8")
    assert "> **Measured on tiny_llama, which the paper has no numbers of." in text
    assert not {BETTER, WORSE} & set(text)
    first, second = csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text(encoding="utf-8")))
    assert second["LLaMA-3.1-8B-Instruct (paper) Q"] == "34.51"


def test_a_model_of_no_family_of_the_table_stands_beside_all_that_the_paper_trained(cell):
    header, (line,) = text_of(rows_of(cell("a", family="smollm2"), table="2"), "2")
    assert [name.split(" (paper)")[0] for name in header[-3:]] == [
        "LLaMA-3.1-8B-Instruct",
        "Qwen-2.5-7B-Instruct",
        "Gemma-2-9b-it",
    ]
    assert [field.split(" / ")[0] for field in line[-3:]] == ["34.51", "23.16", "35.77"]
    header, _ = text_of(rows_of(cell("b", family="smollm2")))
    assert "(paper)" not in " ".join(header)  # no table asked for, nothing to stand beside


def test_api_models_of_the_table_that_no_row_is_of_are_named(cell, tmp_path):
    folders = [cell("a", family="smollm2"), cell("b", backbone="gpt_4o", algo="base")]
    expected = ["gpt_4o_mini", "gemini_2_pro", "claude_3_5_sonnet", "claude_3_7_sonnet"]
    assert api_models_not_run(rows_of(*folders, table="2"), "2") == expected
    assert api_models_not_run(rows_of(*folders, table="9"), "9") == []
    note = write_report(folders, tmp_path, "Table 2", table="2").read_text(encoding="utf-8").split("## Notes")[1]
    assert "GPT-4o-mini (backbone=gpt_4o_mini)" in note and "(backbone=gpt_4o)" not in note


def turns(predicted, n=20):
    return {
        "dialogue": ["d"] * n,
        "turn": list(range(n)),
        "gold": [0, 1] * (n // 2),
        "predicted": predicted,
        "R-L": [10.0] * n,
    }


def test_rows_are_set_against_the_untrained_model_and_sft_of_their_mode(cell, tmp_path):
    right, wrong = [0, 1] * 10, [1, 0] * 10
    folders = [
        cell("base", algo="base", per_turn=turns(wrong)),
        cell("refine", algo="base", decoding="self_refine", decoding_label="Self-Refine", per_turn=turns(wrong)),
        cell("sft", algo="sft", per_turn=turns(wrong)),
        cell("full", algo="sft", mode="full", per_turn=turns(right)),
        cell("dpo", per_turn=turns(right)),
        cell("other", backbone="llama", per_turn=turns(right)),
        cell("format", context={"constrain": "none"}, per_turn=turns(right)),
        cell("kto", algo="kto"),
    ]
    found = compare_rows(rows_of(*folders))
    assert {(one.row.cells[0].folder.name, one.baseline.cells[0].folder.name) for one in found} == {
        *((name, "base") for name in ("refine", "sft", "full", "dpo")),
        ("dpo", "sft"),
    }
    (dpo,) = (one for one in found if one.baseline.cells[0].algo == "sft")
    assert dpo.n == 20 and dpo.differences["Q"].value == 100 and dpo.differences["Q"].significant
    assert dpo.differences["R-L"].value == 0 and not dpo.differences["R-L"].significant
    section = write_report(folders, tmp_path, "demo").read_text(encoding="utf-8").split("## Differences")[1]
    line = next(line for line in section.splitlines() if "CSO-DPO" in line and "LoRA, SFT" in line)
    assert "| **+100.00 [+100.00, +100.00]** |" in line and "| +0.00 [+0.00, +0.00] |" in line


def test_a_row_that_starts_from_sft_is_set_against_that_sft_and_as_many_more_steps_of_it(cell, tmp_path):
    start, steps = {"algorithm.start.training.max_steps": "60"}, {"training.max_steps": "20"}
    after = {"start_from": "sft", "start_label": "SFT", "varied": start | steps}
    folders = [
        cell("base", algo="base", per_turn=turns([1, 0] * 10)),
        # Its steps are those of the row, but not those of the row's start.
        cell("short", algo="sft", variant="a", varied=steps, per_turn=turns([1, 0] * 10)),
        cell("sft", algo="sft", variant="b", varied={"training.max_steps": "60"}, per_turn=turns([1, 0] * 10)),
        cell("longer", algo="sft", per_turn=turns([0, 0] * 10), **after),
        cell("dpo", per_turn=turns([0, 1] * 10), **after),
    ]
    found = compare_rows(rows_of(*folders))
    assert [one.baseline.cells[0].folder.name for one in found if one.row.cells[0].folder.name == "dpo"] == [
        "base",
        "sft",
        "longer",
    ]
    assert [one.baseline.cells[0].folder.name for one in found if one.row.cells[0].folder.name == "longer"] == ["base", "sft"]
    screen = io.StringIO()
    print_report(folders, tmp_path / "report.md", console=Console(file=screen))
    said = screen.getvalue()
    assert (
        "SmolLM2-135M-Instruct, LoRA, CSO-DPO after SFT less SFT [training.max_steps=60]: Q +100.00 [+100.00, +100.00], B "
        in said
    )
    assert said.count("CSO-DPO after SFT less SFT") == 2 and "less base" not in said and "it holds 0" in said


def test_rows_are_compared_over_the_seeds_that_both_have(cell):
    right, wrong = [0, 1] * 10, [1, 0] * 10
    folders = [
        cell("base", algo="base", seed=None, per_turn=turns(wrong)),
        *(cell(f"sft{seed}", algo="sft", seed=seed, per_turn=turns(said)) for seed, said in enumerate((right, wrong, wrong))),
        *(cell(f"dpo{seed}", seed=seed, per_turn=turns(right)) for seed in (0, 7)),
    ]
    found = {(one.row.method, one.baseline.method): one.differences["Q"].value for one in compare_rows(rows_of(*folders))}
    assert found["CSO-DPO", "SFT"] == 0 and found["CSO-DPO", "base"] == 100
    assert found["SFT", "base"] == pytest.approx(100 / 3)
