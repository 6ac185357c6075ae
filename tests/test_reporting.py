import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from rich.console import Console

from cso_lab.errors import UserError
from cso_lab.naming import register_resolvers
from cso_lab.reporting.callback import SweepReport, compose_jobs, job_folder
from cso_lab.reporting.cells import gather, read_cells
from cso_lab.reporting.published import backbones, published, tables
from cso_lab.reporting.report import markdown_table, print_report, write_report
from cso_lab.reporting.table import main_table, mean_and_deviation, table_rows

ROOT = Path(__file__).parents[1]
NOTICE = "searched with simulated role players, not with language models"
LABELS = {"base": "base", "sft": "SFT", "dpo": "CSO-DPO", "kto": "CSO-KTO"}


def metrics(backbone="smollm2", algo="dpo", mode="lora", seed=0, q=20.0, b=1.0, n=210, context=None, **cell):
    trained = algo != "base"
    return {
        "cell": {
            "backbone": backbone,
            "label": {"smollm2": "SmolLM2-135M-Instruct", "llama": "LLaMA-3.1-8B-Instruct"}.get(backbone, backbone),
            "algo": algo,
            "algo_label": LABELS.get(algo, algo),
            "mode": mode if trained else None,
            "mode_label": {"lora": "LoRA", "full": "Full"}[mode] if trained else None,
            "decoding": "plain",
            "start_from": "base",
            "seed": seed if trained else None,
            **cell,
        },
        "Q": q,
        "B": b,
        "Q_W": 30.0,
        "R-L": 15.5,
        "n": n,
        "unparsed": 4,
        "intervals": {"Q": [q - 3, q + 3], "B": [0.5, 2.645]},
        "strategies": {"Affirmation": {"f1": 40.0, "predicted": 9}, "Share Information": {"f1": 0.0, "predicted": 0}},
        "context": {"data": "sample", "constrain": "format", "max_new_tokens": 64, **(context or {})},
    }


@pytest.fixture
def cell(tmp_path):
    """Makes a run folder with a metrics.json in it."""

    def make(name, **values):
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(metrics(**values)), encoding="utf-8")
        return folder

    return make


# The paper's numbers


@pytest.mark.parametrize(
    ("table", "backbone", "row", "expected"),
    [
        ("2", "llama", "lora.dpo", (34.51, 1.11, 41.11, 23.89)),
        ("2", "gpt_4o_mini", "base", (35.68, 2.65, 42.08, 24.91)),
        ("2", "claude_3_7_sonnet", "base", (31.50, 1.18, 48.13, 21.01)),
        ("2", "gemma", "direct_refine", (7.79, 2.55, 12.86, 21.67)),
        ("2", "qwen", "full.sft", (21.73, 2.34, 31.24, 23.54)),
        ("4", "llama", "base", (29.79, 1.18, 38.77, 23.48)),
        ("4", "qwen", "base", (19.83, 2.47, 28.12, 23.52)),
        ("4", "gemma", "random", (29.86, 1.22, 44.58, 25.75)),
        ("9", "llama", "base", (29.79, 1.18, 38.78, 23.48)),
        ("9", "llama", "full.kto", (32.60, 0.88, 36.63, 25.84)),
        ("9", "llama", "lora.simpo", (33.43, 1.04, 40.55, 23.41)),
        ("10", "qwen", "full.orpo", (22.20, 1.24, 35.91, 24.58)),
        ("10", "qwen", "lora.ipo", (22.71, 2.21, 28.75, 23.49)),
        ("11", "gemma", "full.kto", (39.73, 0.81, 48.87, 27.84)),
        ("11", "gemma", "lora.orpo", (32.35, 1.30, 48.14, 25.85)),
        ("12", "qwen32b", "with_example", (20.66, 2.65, 24.40, 21.93)),
        ("12", "qwen32b", "lora.dpo", (38.53, 1.29, 43.95, 24.65)),
    ],
)
def test_the_papers_numbers(table, backbone, row, expected):
    assert published(backbone, row, table) == dict(zip(("Q", "B", "Q_W", "R-L"), expected, strict=True))


def test_what_a_table_lacks_comes_from_another_and_what_the_paper_lacks_is_none():
    assert published("llama", "lora.kto", "2")["Q"] == 32.80  # in Table 9 only
    assert published("llama", "base")["Q_W"] == 38.78
    assert published("smollm2", "lora.dpo") is None
    assert published("qwen32b", "full.dpo") is None
    assert published("llama", "full") is None
    assert published("llama", "lora.dpo.more") is None


def test_the_tables_agree_with_table_2_but_for_two_values():
    rows = ["base", *(f"{mode}.{algo}" for mode in ("full", "lora") for algo in ("sft", "dpo"))]
    differing = {
        (table, backbone, row)
        for table in tables()
        for backbone in ("llama", "qwen", "gemma")
        for row in rows
        if published(backbone, row, table) != published(backbone, row, "2")
    }
    assert differing == {("4", "llama", "base"), ("4", "qwen", "base")}
    assert len(backbones()) == 9


# Cells


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
    assert [str(caught.value)] == [absent.reason for absent in gather([tmp_path])[1]]


def test_failed_missing_and_present_cells_are_told_apart(cell, tmp_path):
    good, failed, silent = cell("good"), cell("failed"), tmp_path / "silent"
    (failed / "failed.json").write_text('{"reason": "no such file: x.json"}')  # its metrics.json is of an earlier run
    cells, absent = gather([good, failed, silent])
    assert [c.folder for c in cells] == [good]
    assert [(a.folder, a.reason) for a in absent] == [
        (failed, "no such file: x.json"),
        (silent, "missing: the cell left no metrics.json"),
    ]


# Rows


def test_mean_and_sample_deviation():
    # By hand: deviations from 22 are -2, -1, 3; squares 4 + 1 + 9 = 14; 14 / (3 - 1) = 7.
    assert mean_and_deviation([20, 21, 25]) == (22, pytest.approx(7**0.5))
    assert mean_and_deviation([20]) == (20, None)


def test_seeds_of_a_cell_are_one_row(cell):
    folders = [cell(f"s{seed}", seed=seed, q=q, b=b) for seed, (q, b) in enumerate([(20, 1.0), (21, 2.0), (25, 3.0)])]
    header, (line,) = main_table(table_rows(read_cells(folders)))
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


def test_no_mean_is_taken_over_one_seed_twice(cell):
    rows = table_rows(read_cells([cell("1", seed=0), cell("2", seed=0), cell("3", seed=1)]))
    assert [(row.full_method, len(row.cells)) for row in rows] == [("CSO-DPO [run 1]", 2), ("CSO-DPO [run 2]", 1)]


def test_what_follows_from_the_seed_makes_no_other_row(cell):
    folders = [cell(str(seed), seed=seed, context={"training_rows": 100 + seed, "test_turns": 210}) for seed in range(2)]
    assert len(table_rows(read_cells(folders))) == 1


def test_llama_stands_beside_the_paper_and_smollm2_does_not(cell):
    small, large = cell("small"), cell("large", backbone="llama", q=33.0)
    header, _ = main_table(table_rows(read_cells([small])))
    assert "paper" not in header
    header, (ours, other) = main_table(table_rows(read_cells([small, large])))
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
        ({"decoding": "self_refine"}, None),
        ({"preferences": "random", "mode": "full"}, None),
        ({"backbone": "tiny_llama", "family": "llama"}, None),
    ],
)
def test_a_cell_finds_its_own_value_of_the_paper(cell, values, q):
    (row,) = table_rows(read_cells([cell("a", **{"backbone": "llama", **values})]))
    assert (row.paper or {}).get("Q") == q


def test_the_table_asked_for_goes_first(cell):
    cells = read_cells([cell("a", backbone="llama", algo="base")])
    assert [table_rows(cells, table)[0].paper["Q_W"] for table in (None, "4", "9")] == [38.78, 38.77, 38.78]


# The report


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
        "- training_rows: 128",
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


# The sweep


def multirun_config(folder, *overrides):
    with initialize_config_dir(str(folder), version_base="1.3"):
        yield GlobalHydra.instance().hydra.compose_config("config", list(overrides), run_mode=RunMode.MULTIRUN)


def test_the_demo_composes_its_jobs_and_the_untrained_cell_comes_once():
    register_resolvers()
    for config in multirun_config(ROOT / "conf", "+table=demo", "algo=base,sft,dpo", "seed=0,1,2"):
        jobs = compose_jobs(config)
        folders = {job_folder(job) for job in jobs}
    assert sorted((job.algorithm.name, job.seed) for job in jobs) == [(a, s) for a in ("base", "dpo", "sft") for s in range(3)]
    assert {job.generation.constrain for job in jobs} == {"format"}
    assert len(folders) == 1 + 3 + 3  # the base model knows no seed
    assert {folder.parent for folder in folders} == {Path("multirun_outputs/demo")}


APP = """
import json, sys
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(cfg):
    out = Path(HydraConfig.get().runtime.output_dir)
    print("ran", cfg.letter)
    if cfg.letter == "broken":
        out.joinpath("failed.json").write_text(json.dumps({"reason": "it broke"}))
    elif cfg.letter != "silent":
        scores = {"Q": cfg.seed, "B": 1.5, "Q_W": 2.5, "R-L": 3.5, "n": 7, "unparsed": 0}
        cell = {"backbone": "toy", "algo": "sft", "algo_label": cfg.letter, "seed": cfg.seed}
        out.joinpath("metrics.json").write_text(json.dumps({"cell": cell, **scores}))

job()
"""
CHECKS = """
from cso_lab.errors import UserError

def check(cfg):
    assert "hydra" not in cfg
    if cfg.letter == "wrong":
        raise UserError("letter=wrong: should be right")
"""
CONFIG = """
letter: a
seed: 0
stages: [report]
hydra:
  sweep: {dir: out, subdir: "${letter}-${seed}-${hydra:job.name}"}
  sweeper: {params: {seed: "1,3"}}
  job: {chdir: false}
  callbacks: {sweep_report: {_target_: cso_lab.reporting.callback.SweepReport}}
"""


@pytest.fixture
def sweep(tmp_path):
    """Runs a small application of Hydra, whose jobs do as told, with the callback; the checks are its own."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(CONFIG)
    (tmp_path / "checks.py").write_text(CHECKS)
    (tmp_path / "app.py").write_text("import sys, checks\nsys.modules['cso_lab.checks'] = checks\n" + APP)

    def run(*line):
        command = [sys.executable, "app.py", "-m", *line]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    return run


def test_a_sweep_ends_with_a_report_of_its_own_cells(sweep, tmp_path):
    (tmp_path / "out" / "old").mkdir(parents=True)
    (tmp_path / "out" / "old" / "metrics.json").write_text(json.dumps(metrics()))  # of another line
    done = sweep("letter=a,b")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "report.md").read_text(encoding="utf-8").splitlines()
    # By hand: seeds 1 and 3 have mean 2 and deviation sqrt((1 + 1) / 1) = 1.41.
    assert [line for line in lines if line.startswith("| toy |")] == [
        f"| toy | – | {letter} | 2.00 ± 1.41 | 1.50 ± 0.00 | 2.50 ± 0.00 | 3.50 ± 0.00 | 7 | 0 | 2 |" for letter in "ab"
    ]
    assert "SmolLM2" not in "\n".join(lines)
    assert done.stdout.splitlines()[-1] == "report: out/report.md"


def test_a_sweep_with_failed_or_missing_cells_reports_them_and_exits_with_1(sweep, tmp_path):
    done = sweep("letter=a,broken,silent", "seed=1")
    assert done.returncode == 1
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| broken-1-app | it broke |" in text
    assert "| silent-1-app | missing: the cell left no metrics.json |" in text
    assert "| toy | – | a | 1.00 |" in text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["letter=a,wrong"], "error: letter=wrong: should be right"),
        (["letter=a", "sneed=1,2"], "error: unknown key 'sneed'"),
    ],
)
def test_nothing_starts_when_a_job_cannot_work(sweep, tmp_path, line, said):
    done = sweep(*line)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert "ran" not in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_sweep_without_the_report_stage_leaves_none_but_names_failures(sweep, tmp_path):
    assert sweep("letter=silent", "stages=[search]").returncode == 0
    done = sweep("letter=silent,broken", "seed=1", "stages=[search]")
    assert done.returncode == 1
    assert "error: broken-1-app: it broke" in done.stderr
    assert not (tmp_path / "out" / "report.md").exists()


def test_another_sweeper_is_reported_by_what_lies_in_its_folder(cell, tmp_path, capsys):
    cell("a")
    for config in multirun_config(
        ROOT / "conf", f"hydra.sweep.dir={tmp_path / 'sweep'}", "hydra.sweeper._target_=other.Sweeper"
    ):
        callback = SweepReport()
        callback.on_multirun_start(config=config)
        callback.on_multirun_end(config=config)
    assert "CSO-DPO" in (tmp_path / "sweep" / "report.md").read_text(encoding="utf-8")
    assert "CSO-DPO" in capsys.readouterr().out
