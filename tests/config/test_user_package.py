"""A package of the user's own, outside the project: its choices are found beside ours, whichever way its conf folder is named."""

import json
import os

import pytest
from outside import CHOICES, write_package
from project import run_py

WAYS = ("--config-dir", "hydra.searchpath")


def typed(way, conf):
    """(arguments, environment) by which a user makes the conf folder of their package known."""
    arguments = [f"--config-dir={conf}"] if way == "--config-dir" else ["hydra.searchpath=[pkg://mine.conf]"]
    path = os.pathsep.join(filter(None, [str(conf.parents[1]), os.environ.get("PYTHONPATH")]))
    return arguments, dict(os.environ) | {"PYTHONPATH": path}


@pytest.mark.parametrize("way", WAYS)
def test_choices_of_the_users_package_compose_and_our_sweeps_stay(way, tmp_path):
    arguments, env = typed(way, write_package(tmp_path))
    shown = run_py(*arguments, *CHOICES, "--cfg", "job", "--resolve", env=env)
    assert shown.returncode == 0, shown.stderr
    for target in ("mine.parts.Reward", "mine.parts.Builder", "mine.parts.Decoding", "mine.trainers.Trainer"):
        assert f"_target_: {target}" in shown.stdout
    unknown = run_py(*arguments, "+table=99", env=env)
    assert unknown.returncode == 2 and len(unknown.stderr.splitlines()) == 1
    for known in ("demo", "mine", "9"):
        assert known in unknown.stderr.split("valid: ")[1].strip().split(", ")


def test_our_tables_run_with_the_users_folder_on_the_search_path(tmp_path):
    arguments, env = typed("hydra.searchpath", write_package(tmp_path))
    shown = run_py(*arguments, "+table=9", "algo=mine", "--cfg", "hydra", env=env)
    assert "mode: MULTIRUN" in shown.stdout and "sft,dpo,simpo,ipo,kto,orpo" in shown.stdout, shown.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["table=9"], "did you mean +table=9?"),
        (["++table=9"], "did you mean +table=9?"),
        (["+tabel=9"], "did you mean +table=9?"),
        (["+figur=4"], "did you mean +figure=4?"),
        (["+table=9,10"], "one command runs one sweep"),
        (["+table=9", "+figure=4"], "one command runs one sweep"),
        (["hydra.searchpath=[pkg://not_there.conf]"], "hydra.searchpath: not_there.conf is not found"),
    ],
)
def test_a_sweep_or_folder_that_is_not_found_never_runs_something_else(line, expected):
    done = run_py(*line)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and expected in done.stderr, done.stderr


@pytest.mark.long
def test_everything_of_the_users_package_is_run(tmp_path):
    arguments, env = typed("--config-dir", write_package(tmp_path))  # both ways compose the same, see above
    small = ("mode=lora", "data.seed_dialogues=6", "training.max_steps=2", "training.batch_size=4", "hardware=cpu")
    limits = ("generation.max_turns=6", "generation.max_new_tokens=4")
    folders = (f"hydra.run.dir={tmp_path}/run", f"shared_dir={tmp_path}/shared")
    done = run_py(*arguments, *CHOICES, *small, *limits, *folders, env=env, cwd=tmp_path, timeout=550)
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "run"
    assert json.loads((run / "metrics.json").read_text())["cell"]["backbone"] == "mine"
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert {prediction["response"] for prediction in predictions} == {"my own words"}
    log = [json.loads(line) for line in (run / "train_log.jsonl").read_text().splitlines()]
    assert [entry["mine"] for entry in log] == [1.0, 1.0]
    stages = json.loads((run / "stages.json").read_text())
    statistics = json.loads(open(f"{stages['dataset']}/statistics.json").read())
    assert statistics["table5"]["per_path"]["all"]["dialogues"] == 2
