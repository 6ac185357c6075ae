"""Which cells a sweep consists of, and that two of them never share a folder."""

import pytest
from project import ROOT, jobs_of, sweep_config, without_hydra

from cso_lab.config.sweeps import expand, plan
from cso_lab.pipeline.check import check
from cso_lab.reporting.rows import published_row

HERE = ("data=sample", "roles=simulated", "mcts=quick")
ALGORITHMS = ("sft", "dpo", "simpo", "ipo", "kto", "orpo")
THREE = ("llama", "qwen", "gemma")


def cells(*overrides):
    """(backbone, algo, mode, preferences, decoding, dialogues) of every job, as a multiset in order."""
    return [
        (
            job.backbone.name,
            job.algorithm.name,
            job.finetune_mode.name if job.algorithm.trainer else None,
            job.preferences.name,
            job.decoding.name,
            job.preferences.dialogues,
        )
        for job in jobs_of(*overrides)
    ]


def cell(backbone, algo, mode=None, preferences="escpro", decoding="plain", dialogues=None):
    return (backbone, algo, mode, preferences, decoding, dialogues)


@pytest.mark.parametrize(
    ("table", "backbone"),
    [("9", "llama"), pytest.param("10", "qwen", marks=pytest.mark.long), pytest.param("11", "gemma", marks=pytest.mark.long)],
)
def test_the_tables_of_algorithms_have_13_cells_of_one_backbone(table, backbone):
    expected = [cell(backbone, "base")] + [cell(backbone, algo, mode) for algo in ALGORITHMS for mode in ("full", "lora")]
    assert cells(f"+table='{table}'") == expected


@pytest.mark.long
def test_table_2_has_what_the_paper_measured_and_no_nonsense():
    decodings = ("plain", "direct_refine", "self_refine", "with_example")
    models = ("gpt_4o_mini", "gpt_4o", "gemini_2_pro", "claude_3_5_sonnet", "claude_3_7_sonnet")
    expected = [cell(name, "base") for name in models]
    expected += [cell(name, "base", decoding=decoding) for name in THREE for decoding in decodings]
    expected += [cell(name, algo, mode) for name in THREE for algo in ("sft", "dpo") for mode in ("full", "lora")]
    assert sorted(cells("+table='2'"), key=str) == sorted(expected, key=str)


def test_table_4_has_the_ablation_and_table_12_the_larger_backbone():
    expected = [cell(name, "base") for name in THREE] + [cell(name, algo, "lora") for name in THREE for algo in ("sft", "dpo")]
    expected += [cell(name, "dpo", "lora", "random") for name in THREE]
    assert sorted(cells("+table='4'"), key=str) == sorted(expected, key=str)
    decodings = ("plain", "direct_refine", "self_refine", "with_example")
    expected = [cell("qwen32b", "base", decoding=decoding) for decoding in decodings]
    expected += [cell("qwen32b", algo, "lora") for algo in ("sft", "dpo")]
    assert cells("+table='12'") == expected


@pytest.mark.long
def test_figure_4_varies_the_dialogues_of_cso_alone():
    def expected(names, volumes):
        found = [cell(name, "base") for name in names] + [cell(name, "sft", "lora") for name in names]
        return sorted(found + [cell(name, "dpo", "lora", dialogues=n) for name in names for n in volumes], key=str)

    assert sorted(cells("+figure='4'"), key=str) == expected(THREE, (100, 200, 300, 400, None))
    line = ("backbone=tiny_llama", *HERE, "preferences.dialogues=3,6")
    assert sorted(cells("+figure='4'", *line), key=str) == expected(["tiny_llama"], (3, 6))


@pytest.mark.long
def test_the_methods_are_beside_each_other_with_three_seeds():
    jobs = jobs_of("+table=methods")
    algorithms = (*ALGORITHMS, "grpo", "dpo_decoupled")
    expected = [("base", 0, 1)] + [(algo, seed, 1) for algo in algorithms for seed in range(3)]
    expected += [("dpo", seed, 2) for seed in range(3)]
    assert sorted((job.algorithm.name, job.seed, job.rounds) for job in jobs) == sorted(expected)


@pytest.mark.long
@pytest.mark.parametrize("study", sorted(file.stem for file in (ROOT / "experiments" / "study").glob("*.yaml")))
def test_the_study_chooses_on_held_out_dialogues_and_looks_at_the_test_dialogues_at_its_end(study):
    jobs = jobs_of(f"+study={study}")
    assert {job.generation.dialogues for job in jobs} == {"test" if study == "final" else "validation"}
    assert {(job.data.validation_share, job.generation.constrain == "none") for job in jobs} == {(0.3, False)}


def test_a_backbone_on_the_line_takes_the_place_of_all_and_every_cell_comes_once():
    found = cells("+table='2'", "backbone=smollm2", *HERE)
    assert len(found) == len(set(found)) == 4 + 4
    assert {name for name, *_ in found} == {"smollm2"}


def test_seeds_multiply_the_cells_that_know_one_and_the_untrained_model_comes_once():
    with sweep_config("+table=demo", "algo=base,sft,dpo", "seed=0,1,2") as config:
        jobs = plan(config)
    assert sorted((job.config.algorithm.name, job.config.seed) for job in jobs) == [
        ("base", 0),
        *((algo, seed) for algo in ("dpo", "sft") for seed in range(3)),
    ]
    assert {job.config.generation.constrain for job in jobs} == {"format"}
    assert len({job.folder for job in jobs}) == len(jobs)
    assert {str(job.folder.parent) for job in jobs} == {"multirun_outputs/demo"}


@pytest.mark.parametrize(
    ("params", "blocks", "line", "expected"),
    [
        ({}, [], ["a=1,2"], [["a=1"], ["a=2"]]),
        ({"a": "1,2"}, [], [], [["a=1"], ["a=2"]]),
        ({"a": "1,2"}, [], ["a=3"], [["a=3"]]),
        ({}, [{"a": 1}, {"a": "2,3", "b": "x"}], [], [["a=1"], ["a=2", "b=x"], ["a=3", "b=x"]]),
        # an axis of a block replaces that of the sweep, the line both; a key of the line that only some blocks have stays with them
        ({"a": "1,2"}, [{"a": 9}, {"b": "x"}], [], [["a=9"], ["a=1", "b=x"], ["a=2", "b=x"]]),
        ({}, [{"a": 1}, {"a": 2, "b": "x"}], ["b=y"], [["a=1"], ["a=2", "b=y"]]),
        ({}, [{"a": 1}, {"a": 2}], ["c=0"], [["a=1", "c=0"], ["a=2", "c=0"]]),
        ({}, [{"a": 1}, {"a": 2}], ["a=5"], [["a=5"]]),
    ],
)
def test_blocks_and_the_line_over_them(params, blocks, line, expected):
    assert expand(params, blocks, line) == expected


def test_a_table_without_its_data_says_so_before_anything_starts():
    from cso_lab.core.errors import UserError

    job = without_hydra(jobs_of("+table='9'", "algo=base")[0])
    with pytest.raises(UserError, match="data.path=FILE"):
        check(job)


@pytest.mark.long
def test_every_row_of_a_paper_table_has_its_cell():
    """Held against the numbers as published, which were typed from the paper."""
    from cso_lab.core.published import rows_of, table_names
    from cso_lab.reporting.cells import Cell

    for table in table_names():
        wanted = {(backbone, row) for backbone, rows in rows_of(table).items() for row in rows}
        ours = {
            (
                backbone,
                published_row(Cell(None, backbone, "", algo, "", {}, 0, mode=mode, decoding=decoding, preferences=preferences)),
            )
            for backbone, algo, mode, preferences, decoding, _ in cells(f"+table='{table}'")
        }
        assert ours == wanted, table
