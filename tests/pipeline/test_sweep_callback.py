import json
import os
import subprocess
import sys

import pytest
from fakes import metrics
from project import ROOT, sweep_config

from cso_lab.pipeline.sweep_callback import SweepCallback

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
from cso_lab.core.errors import UserError

def check(cfg):
    assert "hydra" not in cfg
    if cfg.letter == "wrong":
        raise UserError("letter=wrong: should be right")
"""
CONFIG = """
letter: a
seed: 0
stages: [evaluate, report]
estimate: true  # no job has models or trackers to look at before the first
report: {folder: null, table: null}
hydra:
  sweep: {dir: out, subdir: "${letter}-${seed}-${hydra:job.name}"}
  sweeper: {params: {seed: "1,3"}}
  job: {chdir: false}
  callbacks: {sweep_report: {_target_: cso_lab.pipeline.sweep_callback.SweepCallback}}
"""


@pytest.fixture
def sweep(tmp_path):
    """Runs a small application of Hydra, whose jobs do as told, with the callback; the checks are its own."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(CONFIG)
    (tmp_path / "checks.py").write_text(CHECKS)
    (tmp_path / "app.py").write_text(
        "import checks, cso_lab.pipeline.check\ncso_lab.pipeline.check.check = checks.check\n" + APP
    )

    def run(*line):
        command = [sys.executable, "app.py", "-m", *line]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)

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
    assert done.stdout.splitlines()[-2:] == ["report: out/report.md", "report: out/report.html"]


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


def test_another_sweeper_is_reported_by_what_lies_in_its_folder(tmp_path, capsys):
    (tmp_path / "sweep" / "a").mkdir(parents=True)
    (tmp_path / "sweep" / "a" / "metrics.json").write_text(json.dumps(metrics()))
    with sweep_config(f"hydra.sweep.dir={tmp_path / 'sweep'}", "hydra.sweeper._target_=other.Sweeper") as config:
        callback = SweepCallback()
        callback.on_multirun_start(config=config)
        callback.on_multirun_end(config=config)
    assert "CSO-DPO" in (tmp_path / "sweep" / "report.md").read_text(encoding="utf-8")
    assert "CSO-DPO" in capsys.readouterr().out
