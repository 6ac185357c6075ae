import pytest

from cso_lab.reporting.cells import read_cells
from cso_lab.reporting.results_table import ResultsTable
from cso_lab.reporting.rows import mean_and_deviation, table_rows


def text_of(rows) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main table."""
    table = ResultsTable(rows).text()
    return table.header, table.rows


def test_mean_and_sample_deviation():
    # By hand: deviations from 22 are -2, -1, 3; squares 4 + 1 + 9 = 14; 14 / (3 - 1) = 7.
    assert mean_and_deviation([20, 21, 25]) == (22, pytest.approx(7**0.5))
    assert mean_and_deviation([20]) == (20, None)


def test_seeds_of_a_cell_are_one_row(cell):
    folders = [cell(f"s{seed}", seed=seed, q=q, b=b) for seed, (q, b) in enumerate([(20, 1.0), (21, 2.0), (25, 3.0)])]
    header, (line,) = text_of(table_rows(read_cells(folders)))
    assert header == ["Model", "Tuning", "Method", "Q ↑", "B ↓", "Q_W ↑", "R-L ↑", "n", "unparsed", "seeds"]
    assert line == [
        *("SmolLM2-135M-Instruct", "LoRA", "CSO-DPO"),
        *("22.00 ± 2.65", "2.00 ± 1.00", "30.00 ± 0.00", "15.50 ± 0.00", "210", "4", "3"),
    ]


def test_rows_stand_in_the_papers_order(cell):
    folders = [
        cell("1", algo="kto"),
        cell("2", algo="dpo", start_from="sft"),
        cell("3", algo="dpo"),
        cell("4", algo="sft"),
        cell("5", algo="dpo", mode="full"),
        cell("6", algo="base"),
        cell("7", algo="base", decoding="self_refine", decoding_label="Self-Refine"),
        cell("8", algo="sft", backbone="llama"),
        cell("9", algo="grpo"),
    ]
    assert [row.name for row in table_rows(read_cells(folders))] == [
        "LLaMA-3.1-8B-Instruct, LoRA, SFT",
        "SmolLM2-135M-Instruct, base",
        "SmolLM2-135M-Instruct, Self-Refine",
        "SmolLM2-135M-Instruct, Full, CSO-DPO",
        "SmolLM2-135M-Instruct, LoRA, SFT",
        "SmolLM2-135M-Instruct, LoRA, CSO-DPO",
        "SmolLM2-135M-Instruct, LoRA, CSO-DPO after SFT",
        "SmolLM2-135M-Instruct, LoRA, CSO-KTO",
        "SmolLM2-135M-Instruct, LoRA, grpo",
    ]


def test_cells_that_differ_in_more_than_the_seed_are_rows_of_their_own(cell):
    folders = [
        cell("1", seed=0, variant="aaa"),
        cell("2", seed=1, variant="aaa"),
        cell("3", seed=0, variant="bbb"),
        cell("4", algo="sft", variant="ccc"),
        cell("5", algo="kto", variant="ddd", context={"constrain": "none"}),
        cell("6", algo="kto", variant="eee", context={"constrain": "format"}),
    ]
    rows = table_rows(read_cells(folders))
    assert [(row.full_method, len(row.cells)) for row in rows] == [
        ("SFT", 1),
        ("CSO-DPO [variant aaa]", 2),
        ("CSO-DPO [variant bbb]", 1),
        ("CSO-KTO [constrain=format]", 1),
        ("CSO-KTO [constrain=none]", 1),
    ]


def test_rows_say_what_was_varied(cell):
    folders = [
        cell("1", variant="aaa"),
        cell("2", variant="bbb", varied={"training.learning_rate": "1e-5"}),
        cell("3", variant="ccc", varied={"training.learning_rate": "1e-4", "algorithm.beta": "0.3"}, seed=0),
        cell("4", variant="ccc", varied={"training.learning_rate": "1e-4", "algorithm.beta": "0.3"}, seed=1),
        cell("5", algo="sft", variant="ddd", varied={"training.learning_rate": "1e-5"}),
        cell("6", algo="kto", variant="eee", varied={"algorithm.beta": "0.3"}),
        cell("7", algo="kto", variant="fff", varied={"algorithm.beta": "0.3"}),
    ]
    rows = table_rows(read_cells(folders))
    assert [(row.full_method, len(row.cells)) for row in rows] == [
        ("SFT", 1),
        ("CSO-DPO", 1),
        ("CSO-DPO [training.learning_rate=1e-4, algorithm.beta=0.3]", 2),
        ("CSO-DPO [training.learning_rate=1e-5]", 1),
        ("CSO-KTO [variant eee]", 1),
        ("CSO-KTO [variant fff]", 1),
    ]


def test_no_mean_is_taken_over_one_seed_twice(cell):
    rows = table_rows(read_cells([cell("1", seed=0), cell("2", seed=0), cell("3", seed=1)]))
    assert [(row.full_method, len(row.cells)) for row in rows] == [("CSO-DPO [run 1]", 2), ("CSO-DPO [run 2]", 1)]


def test_what_follows_from_the_seed_makes_no_other_row(cell):
    folders = [cell(str(seed), seed=seed, context={"training_rows": 100 + seed, "test_turns": 210}) for seed in range(2)]
    assert len(table_rows(read_cells(folders))) == 1


def test_llama_stands_beside_the_paper_and_smollm2_does_not(cell):
    small, large = cell("small"), cell("large", backbone="llama", q=33.0)
    header, _ = text_of(table_rows(read_cells([small])))
    assert "paper" not in header
    header, (ours, other) = text_of(table_rows(read_cells([small, large])))
    assert header[3:11] == ["Q ↑", "paper", "B ↓", "paper", "Q_W ↑", "paper", "R-L ↑", "paper"]
    assert ours[3:7] == ["33.00", "34.51", "1.00", "1.11"]
    assert other[3:7] == ["20.00", "–", "1.00", "–"]


@pytest.mark.parametrize(
    ("values", "q"),
    [
        ({"algo": "base"}, 29.79),
        ({"algo": "base", "decoding": "with_example"}, 8.85),
        ({"algo": "kto", "mode": "full"}, 32.60),
        ({"preferences": "random"}, 31.79),
        ({"preferences": "escpro"}, 34.51),
        ({"start_from": "sft"}, None),
        ({"context": {"rounds": 2}}, None),
        ({"context": {"measured_on": "validation dialogues"}}, None),
        ({"decoding": "self_refine"}, None),
        ({"preferences": "random", "mode": "full"}, None),
        ({"backbone": "tiny_llama", "family": "llama"}, None),
    ],
)
def test_a_cell_finds_its_own_value_of_the_paper(cell, values, q):
    (row,) = table_rows(read_cells([cell("a", **{"backbone": "llama", **values})]))
    assert (row.paper or {}).get("Q") == q


def test_another_model_under_the_backbones_name_stands_beside_no_published_value(cell):
    own, other = cell("own", backbone="llama"), cell("other", backbone="llama", context={"path": "org/Other-8B"})
    rows = table_rows(read_cells([own, other]))
    assert [(row.name, row.paper is None) for row in rows] == [
        ("LLaMA-3.1-8B-Instruct, LoRA, CSO-DPO", False),
        ("org/Other-8B, LoRA, CSO-DPO", True),
    ]
    assert text_of(rows)[1][1][3:5] == ["20.00", "–"]


def test_the_table_asked_for_goes_first(cell):
    cells = read_cells([cell("a", backbone="llama", algo="base")])
    assert [table_rows(cells, table)[0].paper["Q_W"] for table in (None, "4", "9")] == [38.78, 38.77, 38.78]
