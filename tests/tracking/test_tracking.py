"""W&B: what stands in the runs that cells leave offline, read back; and that nothing of it touches results."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conversations import PLAN, VALIDATE, written
from omegaconf import OmegaConf
from project import ROOT, composed
from reporting.conversation_runs import NOTICE, write_conversations
from reporting.run_folders import NAMES, write_run
from reporting.run_folders import dialogues_of as dialogues
from tracking.wandb_runs import keyless, left_in

from cso_lab.core.errors import UserError
from cso_lab.pipeline.cell_names import cell_name, varied
from cso_lab.pipeline.check import check
from cso_lab.pipeline.metadata import tracked_cell
from cso_lab.tracking import NoTracker, TrackedCell, tracker
from cso_lab.tracking.contents import flat, steps_after

SECRET = "sk-recognisable-0123456789abcdef"
SEARCH = ["stages=[search]", "data.seed_dialogues=2", "mcts.min_iterations=3", "mcts.max_iterations=3"]


def tracking_run(home, *line, cwd=ROOT, env=None):
    # Not forked: wandb makes a folder when it is imported, and the first process that ends removes it.
    command = [sys.executable, str(ROOT / "run.py"), *line]
    return subprocess.run(command, cwd=cwd, env=keyless(home, **env or {}), capture_output=True, text=True, timeout=300)


def wandb_tracker(folder, **changes):
    """A tracker of a cell in `folder`, offline, in this process."""
    from cso_lab.tracking.wandb_run import WandbTracker

    own = {"mode": "offline", "project": "p", "entity": None, "group": None, "tags": ["mine"]}
    limits = {"log_artifacts": True, "files_up_to_mb": 200, "prediction_rows": 2}
    cell = TrackedCell("cell", folder, "sweep", ("tiny", "dpo"), {"seed": 0}, None, False)
    return WandbTracker(cell, **own | limits | changes)


def log_steps(folder, *steps):
    with (folder / "train_log.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"step": step, "loss": 1 / step, "grad_norm": None}) + "\n" for step in steps)


def test_tracking_is_part_of_no_name_and_of_no_varied_value():
    plain = composed("algo=dpo")
    shown = composed("algo=dpo", "tracking=wandb", "tracking.tags=[a]", "tracking.mode=offline")
    assert cell_name(shown) == cell_name(plain)
    assert varied(shown, ["tracking=wandb", "tracking.project=x"]) == {}
    assert isinstance(tracker(plain.tracking, tracked_cell(plain, Path("folder"))), NoTracker)


@pytest.mark.parametrize(
    ("line", "expected"),
    [("tracking.mode=on", "auto.*online.*offline"), ("tracking.prediction_rows=-1", "greater"), ("tracking.tags=a", "list")],
)
def test_impossible_values_are_refused_before_any_work(line, expected):
    check(composed("tracking=wandb"))
    with pytest.raises(UserError, match=f"{line.partition('=')[0]}.*{expected}"):
        check(composed("tracking=wandb", line))


def test_a_cell_is_grouped_by_its_table_or_its_sweeps_folder_and_bare_of_passwords(tmp_path):
    line = ["tracking=wandb", "algo=dpo", "mode=full", "roles=server", "roles.api_base=http://me:hidden@host:1/v1"]
    cell = tracked_cell(composed(*line), tmp_path / "mine" / "cell")
    assert (cell.group, cell.tags) == ("mine", ("smollm2", "dpo", "full"))
    assert cell.config["roles"]["api_base"] == "http://host:1/v1" and "hidden" not in json.dumps(cell.config)
    assert cell.config["cell"]["algo"] == "dpo" and cell.config["training"]["batch_size"] == 32
    assert tracked_cell(composed("sweep=table9", "algo=base"), tmp_path / "mine" / "cell").group == "table9"
    assert tracked_cell(composed("algo=base"), tmp_path).tags == ("smollm2", "base")


def test_nested_results_become_flat_numbers_and_words():
    given = {
        "Q": 1.5,
        "intervals": {"Q": [1, 2]},
        "per": [1, 2, 3],
        "none": None,
        "bad": float("nan"),
        "a": {"b": True, "c": "x"},
    }
    assert flat(given) == {"Q": 1.5, "intervals/Q/low": 1, "intervals/Q/high": 2, "a/b": True, "a/c": "x"}
    assert flat({"Q": 1}, "cell") == {"cell/Q": 1}


def test_half_a_line_of_a_log_waits_until_it_is_whole(tmp_path):
    file = tmp_path / "log.jsonl"
    assert list(steps_after(file, 0)) == []
    file.write_text('{"step": 1}\n{"step": 2}\n{"st', encoding="utf-8")
    assert [entry["step"] for entry in steps_after(file, 1)] == [2]


def test_a_training_is_followed_and_gone_on_with_in_the_same_run_without_a_step_twice(tmp_path):
    with pytest.raises(KeyboardInterrupt), wandb_tracker(tmp_path) as tracking:
        tracking.stage_started("train", tmp_path)
        log_steps(tmp_path, 1, 2)
        raise KeyboardInterrupt
    with wandb_tracker(tmp_path) as tracking:
        tracking.stage_started("train", tmp_path)
        log_steps(tmp_path, 3)
        (tmp_path / "training.json").write_text('{"loss": 0.5}')
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint" / "weights").write_bytes(bytes(3_000_000))
        tracking.stage_finished("train", tmp_path)
    first, second = left_in(tmp_path)
    assert first.run["run_id"] == second.run["run_id"]
    assert (first.exit_code, second.exit_code) == (130, 0)
    assert (first.logged("train/step"), second.logged("train/step")) == ([1, 2], [3])
    assert first.logged("train/loss") == [1, 0.5] and first.summary["failed"] == "KeyboardInterrupt"
    assert second.summary["training/loss"] == 0.5 and second.summary["stage"] == "finished"
    (kept,) = second.artifacts["checkpoint-cell"]
    assert kept["path"] == "weights" and kept["local_path"] == str(tmp_path / "checkpoint" / "weights")  # no second copy of it


def test_of_a_large_artifact_only_the_place_is_kept_and_none_where_none_is_wanted(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights").write_bytes(bytes(3_000_000))
    for number, changes in enumerate([{"files_up_to_mb": 2}, {"log_artifacts": False}]):
        with wandb_tracker(tmp_path, group=str(number), **changes) as tracking:
            tracking.stage_finished("train", tmp_path)
    by_group = {run.run["run_group"]: run for run in left_in(tmp_path)}
    (kept,) = by_group["0"].artifacts["checkpoint-cell"]
    assert kept["ref"] == (tmp_path / "checkpoint" / "weights").as_uri() and "local_path" not in kept
    assert by_group["1"].artifacts == {}


def test_conversations_leave_their_numbers_and_their_curve_once(tmp_path):
    spoken = [
        (VALIDATE, "I hear you.", 6.0, {"E": 4, "I": 1, "H": 3, "S": 2}, ()),
        (PLAN, "Get over it.", 3.0, None, ("dismissal",)),
    ]
    folder = write_conversations(tmp_path / "cell", [written(1, "open", spoken, "relieved")], max_turns=3)
    for tag in ("mine", "another"):  # opened again because where it goes has changed
        with wandb_tracker(folder, tags=[tag]) as tracking:
            tracking.stage_started("converse", folder)
            tracking.stage_finished("converse", folder)
    first, second = left_in(folder)
    assert first.run["run_id"] == second.run["run_id"] and first.exit_code == 0
    assert first.logged("conversation_curve/turn") == [0, 1, 2, 3]
    assert first.logged("conversation_curve/intensity") == [8.0, 6.0, 3.0, 3.0]
    assert first.logged("conversation_curve/intensity/low") == [8.0, 6.0, 3.0, 3.0]
    assert second.logged("conversation_curve/turn") == []
    expected = {
        "success": 100,
        "success/low": 100,
        "turns_to_success": 2,
        "E": 4,
        "n": 1,
        "endings/relieved": 1,
        "harm/kinds/dismissal": 1,
    }
    expected |= {f"strategies/{PLAN}": 0.5, "by_persona/open/success": 100, "usage/players/calls/judge": 7}
    assert {name: first.summary[f"conversation/{name}"] for name in expected} == expected
    assert NOTICE[1:] in first.summary["conversation/notices"]
    assert list(first.folder.glob("files/media/images/figures/transitions_*.png"))


@pytest.mark.parametrize(
    ("environment", "asked", "expected"),
    [
        ({}, "auto", "offline"),
        ({"WANDB_API_KEY": "a" * 40}, "auto", "online"),
        ({"WANDB_API_KEY": "a" * 40, "WANDB_MODE": "offline"}, "auto", "offline"),
        ({"WANDB_API_KEY": "a" * 40}, "offline", "offline"),
        ({}, "online", "UserError: tracking.mode=online needs a key"),
        ({"login": "yes"}, "auto", "online"),
    ],
)
def test_where_runs_go_is_found_out_without_asking(tmp_path, environment, asked, expected):
    home = tmp_path / "home"
    home.mkdir()
    if "login" in environment:
        (home / ".netrc").write_text(f"machine wandb.test login user password {'a' * 40}\n")
    probe = (
        "import sys\nfrom cso_lab.tracking.credentials import resolve_mode\n"
        "try: print(resolve_mode(sys.argv[1]))\nexcept Exception as error: print(f'{type(error).__name__}: {error}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, asked],
        cwd=ROOT,
        env=keyless(home, WANDB_BASE_URL="https://wandb.test", **environment),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.stdout.startswith(expected), done.stdout + done.stderr


@pytest.mark.long
def test_a_search_costs_nothing_untracked_and_tracked_shows_its_live_numbers_and_no_key(tmp_path):
    line = [*SEARCH, f"hydra.run.dir={tmp_path}/sweep/run", f"shared_dir={tmp_path}/shared"]
    probe = (
        "import sys, runpy; sys.argv = ['run.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit as left: assert not left.code\n"
        "print('wandb imported:', 'wandb' in sys.modules)"
    )
    without = subprocess.run([sys.executable, "-c", probe, *line], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert without.stdout.splitlines()[-1] == "wandb imported: False", without.stdout + without.stderr
    assert not (tmp_path / "sweep" / "run" / "wandb").exists()

    keys = {"OPENAI_API_KEY": SECRET, "WANDB_API_KEY": "ab" * 20, "WANDB_MODE": "offline"}
    fresh = [*line, "tracking=wandb", "data.split_seed=1"]
    done = tracking_run(tmp_path / "home", *fresh, env=keys)
    assert done.returncode == 0, done.stderr
    (run,) = left_in(tmp_path / "sweep" / "run")
    assert run.exit_code == 0 and run.run["run_group"] == "sweep" and run.run["tags"] == ["smollm2", "dpo", "lora"]
    assert run.run["project"] == "cso_lab" and run.run["display_name"].startswith("smollm2-dpo-lora-seed0-")
    assert run.config["mcts"]["max_iterations"] == 3 and run.config["cell"]["algo"] == "dpo"
    where = Path(json.loads((tmp_path / "sweep" / "run" / "stages.json").read_text())["search"])
    summary = json.loads((where / "search.json").read_text())
    shown = [entry for entry in run.history if "search/calls" in entry]
    assert shown[-1]["search/dialogues_done"] == 2 and shown[-1]["search/calls"] == sum(summary["usage"]["calls"].values())
    assert shown[-1]["search/calls/judge"] == summary["usage"]["calls"]["judge"] > 0
    assert run.summary["search/trees"] == 2 and run.summary["search/agreement_with_gold/turns"] > 0
    for file in filter(os.path.isfile, tmp_path.rglob("*")):
        assert SECRET.encode() not in file.read_bytes() and b"ab" * 20 not in file.read_bytes(), file
    assert not (ROOT / "wandb").exists()


@pytest.mark.long
def test_finished_work_is_shown_later_and_once_and_never_computed_for_it(tmp_path):
    folder = write_run(tmp_path / "sweep" / "run", dialogues(24), 0, algo="base")
    for file in ("metrics.json", "run.json"):
        (folder / file).unlink()
    (folder / "stages.json").write_text(json.dumps({"generate": str(folder)}))  # by an earlier command
    line = ["algo=base", "backbone=llama", "stages=[evaluate]", f"hydra.run.dir={folder}", f"shared_dir={tmp_path}/shared"]

    def results():
        return {name: (folder / name).stat().st_mtime_ns for name in ("metrics.json", "run.json", "predictions.jsonl")}

    def run(*more):
        done = tracking_run(tmp_path / "home", *line, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run()
    before = results()["metrics.json"]
    assert left_in(folder) == []
    run("tracking=wandb")
    assert results()["metrics.json"] == before
    assert "nothing new" in run("tracking=wandb")
    (shown,) = left_in(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert shown.exit_code == 0 and shown.run["tags"] == ["llama", "base"]
    for key in ("Q", "B", "Q_W", "R-L", "n"):
        assert shown.summary[key] == metrics[key]
    assert shown.summary["paper/Q"] > 0
    assert shown.summary["difference_to_paper/Q"] == pytest.approx(metrics["Q"] - shown.summary["paper/Q"], abs=1e-3)
    assert len(shown.tables["predictions"]["data"]) == 24
    assert [row[0] for row in shown.tables["strategies"]["data"]] == list(NAMES)
    assert [row[0] for row in shown.tables["paper_comparison"]["data"]] == ["Q", "B", "Q_W", "R-L"]
    for figure in ("preferences", "confusion"):
        assert list(shown.folder.glob(f"files/media/images/figures/{figure}_*.png"))

    run("tracking=wandb", "rerun=true")
    first, again = left_in(folder)
    assert first.run["run_id"] != again.run["run_id"] and again.summary["Q"] == metrics["Q"]


@pytest.mark.long
def test_a_failed_cells_run_is_finished_with_exit_code_1_and_its_reason(tmp_path):
    line = ["stages=[train]", "tracking=wandb", f"hydra.run.dir={tmp_path}/run", f"shared_dir={tmp_path}/shared"]
    done = tracking_run(tmp_path / "home", *line)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (run,) = left_in(tmp_path / "run")
    assert run.exit_code == 1 and "no trees for this configuration" in run.summary["failed"]


@pytest.mark.long
def test_a_run_is_finished_on_ctrl_c(tmp_path):
    line = [*SEARCH, "data.seed_dialogues=80", "mcts.min_iterations=60", "mcts.max_iterations=60", "tracking=wandb"]
    command = [sys.executable, "run.py", *line, f"hydra.run.dir={tmp_path}/run", f"shared_dir={tmp_path}/shared"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=keyless(tmp_path / "home"), start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 240
        while not list(tmp_path.glob("shared/search/*/calls.jsonl")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        assert process.wait(timeout=120) == 130
    finally:
        process.kill()
    (run,) = left_in(tmp_path / "run")
    assert run.exit_code == 130 and run.summary["failed"] == "KeyboardInterrupt"


@pytest.mark.long
def test_two_cells_of_a_sweep_are_two_runs(tmp_path):
    line = [
        *("-m", "backbone=tiny_llama", "algo=sft,dpo", "tracking=wandb", "data.seed_dialogues=2", "training.max_rows=8"),
        *("training.max_steps=2", "training.batch_size=4", "training.max_prompt_length=1200", "generation.max_new_tokens=8"),
        *("generation.max_turns=8", "generation.constrain=format", "mcts.min_iterations=3", "mcts.max_iterations=3"),
        *(f"shared_dir={tmp_path}/shared", f"hydra.sweep.dir={tmp_path}/sweep", "sweep=pair"),
    ]
    done = tracking_run(tmp_path / "home", *line)
    assert done.returncode == 0, done.stderr[-3000:]
    for algo in ("sft", "dpo"):
        (folder,) = (tmp_path / "sweep").glob(f"*-{algo}-*")
        (run,) = left_in(folder)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert run.exit_code == 0 and run.run["run_group"] == "pair" and algo in run.run["tags"]
        assert run.logged("train/step") == [1, 2] and all(run.logged("train/loss"))
        assert run.summary["Q"] == metrics["Q"] and run.summary["training/steps"] == 2
        assert bool(run.logged("search/calls")) == (algo == "sft")  # the second cell found the search done
        assert run.summary["search/trees"] == 2 and run.summary["dataset/rows/pairs"] > 0
        assert {name.partition("-")[0] for name in run.artifacts} >= {"dataset", "checkpoint"}
        assert len(run.tables["predictions"]["data"]) == 8
        assert OmegaConf.load(folder / "config.yaml").tracking.project == run.run["project"]
