"""Training in several processes that the run starts itself: the same rows a step, the same losses, and nobody left behind."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from project import ROOT
from trainings import config, train_in_two_processes

from cso_lab.core.errors import UserError
from cso_lab.pipeline.check import check

ONE = ["training.max_steps=3", "training.per_device_batch_size=4", "training.max_prompt_length=2000", "training.batch_size=8"]
TWO = [*ONE, "hardware.processes=2"]


def log(folder):
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]


def losses(folder):
    return [entry["loss"] for entry in log(folder)]


def start(cfg, data, out):
    """The training as a process of its own, which can be killed."""
    from omegaconf import OmegaConf

    OmegaConf.save(cfg, out.with_suffix(".yaml"), resolve=True)
    code = (
        "import sys; from pathlib import Path; from omegaconf import OmegaConf\n"
        "from cso_lab.training.train import train\n"
        "cfg, data, out = sys.argv[1:]\n"
        "train(OmegaConf.load(cfg), Path(data), Path(out))"
    )
    command = [sys.executable, "-c", code, str(out.with_suffix(".yaml")), str(data), str(out)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)


def workers_of(out):
    """Ids of the processes whose command line names this run folder, but for the run itself."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = open(f"/proc/{process}/cmdline", "rb").read().decode()
        except OSError:
            continue
        if f"{out}/workers" in line:
            found.append(int(process))
    return found


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_effective_batch_does_not_depend_on_the_number_of_processes(shared):
    from cso_lab.training.arguments import batches

    for processes in (1, 2, 4, 8):
        at_once, steps = batches(config(shared, "training.batch_size=32", f"hardware.processes={processes}"))
        assert at_once * steps * processes == 32
    with pytest.raises(UserError, match="batch_size=32 is no multiple of hardware.processes.*3"):
        batches(config(shared, "training.batch_size=32", "hardware.processes=3"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["hardware=ddp", "hardware.processes=3", "training.batch_size=32"], "no multiple of hardware.processes"),
        (["hardware=zero2", "hardware.processes=2", "hardware.nodes=3"], "hardware.nodes"),
        (["hardware=slurm", "hardware.processes=0"], "hardware.processes=0"),
        (["algo=kto", "hardware=ddp", "training.batch_size=2"], "KTO"),
        (["training.tree_mask=block"], "training.tree_mask=block: should be 'auto', 'blocks', 'dense' or 'flex'"),
        (["training.tree_mask=blocks", "backbone=tiny_gemma"], "tree_mask=blocks takes .*=sdpa, not eager"),
        (["training.tree_mask=dense", "backbone.attn_implementation=flex_attention"], "tree_mask=dense takes"),
    ],
)
def test_what_cannot_be_trained_so_is_said_before_work_starts(shared, line, expected):
    with pytest.raises(UserError, match=expected):
        check(config(shared, *line))


def test_an_epochs_last_step_is_shared_out_evenly_and_no_row_comes_twice():
    from cso_lab.training.samplers import Layout, PartSampler

    layout = Layout(rows=11, batch_size=8, part_size=4, processes=2)
    assert layout.steps == 2
    assert [layout.step(number) for number in range(4)] == [[[4, 4]], [[2, 1]], [[4, 4]], [[2, 1]]]
    assert list(PartSampler(range(11), layout)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [10]]
    assert Layout(rows=14, batch_size=16, part_size=4, processes=2).step(0) == [[4, 4], [3, 3]]
    # the second process has no row: it computes the first one's again, which counts nothing
    nothing = Layout(rows=9, batch_size=8, part_size=4, processes=2)
    assert nothing.step(1) == [[1, 0]]
    assert list(PartSampler(range(9), nothing)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8], [8]]
    assert len(PartSampler(range(9), nothing)) == 4


# Two epochs of three whole batches of 8 rows and a partial one.
EPOCHS = ["training.max_steps=-1", "training.num_train_epochs=2", "training.batch_size=8", "training.max_prompt_length=2000"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("hardware", "mode", "algo", "rows", "at_once"),
    [
        ("ddp", "full", "dpo", 27, 4),
        # two passes a step, against one of a single process
        ("zero2", "full", "dpo", 27, 2),
        ("zero3", "full", "dpo", 27, 4),
    ],
)
def test_two_processes_agree_with_one(shared, uneven, tmp_path, hardware, mode, algo, rows, at_once):
    from cso_lab.training.train import train

    alone, together = lines_of(hardware, mode, algo, rows, at_once)
    one = train(config(shared, *alone), uneven, tmp_path / "one")
    two = train(config(shared, *together), uneven, tmp_path / "two")
    assert two["steps"] == one["steps"] == 2 * math.ceil(rows / 8) and two["device"] == "cpu"
    assert_same_training(tmp_path / "one", tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["checkpoint", "train_log.jsonl"]
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".safetensors", ".json", ".jinja", ".jsonl"}


@pytest.mark.long
def test_losses_of_two_parts_agree_under_ddp(shared, uneven, tmp_path):
    from cso_lab.training.train import train

    lines = {algo: lines_of("ddp", "lora", algo, 25, at_once=2) for algo in ("orpo", "dpo_sft")}
    train_in_two_processes({algo: config(shared, *together) for algo, (_, together) in lines.items()}, uneven, tmp_path)
    for algo, (alone, _) in lines.items():
        train(config(shared, *alone), uneven, tmp_path / f"{algo}-alone")
        assert_same_training(tmp_path / f"{algo}-alone", tmp_path / algo)


@pytest.mark.long
def test_under_zero2_every_algorithm_agrees_and_bfloat16_leaves_reference_log_probabilities_as_they_are(
    shared, uneven, tmp_path
):
    """In bfloat16: before the first step policy and reference are one, so DPO's loss is log 2, whatever beta, and KTO's is half of the
    mean of its weights."""
    from cso_lab.training.train import train

    # In the first one, the last step has one row, for the first process.
    cells = [("lora", "dpo", 25), ("lora", "ipo", 27), ("full", "kto", 27), ("lora", "sft", 9), ("lora", "simpo", 27)]
    lines = {f"{algo}-{mode}": lines_of("zero2", mode, algo, rows, at_once=4) for mode, algo, rows in cells}
    lines["dpo_strategy-lora"] = lines_of("zero2", "lora", "dpo_strategy", 25, at_once=2)
    first_losses = {}
    for mode, algo in (("lora", "dpo"), ("full", "dpo"), ("lora", "kto")):
        line = [*TWO, f"algo={algo}", f"mode={mode}", "algorithm.beta=5", "training.dtype=bfloat16", "training.max_steps=1"]
        line += ["algorithm.undesirable_weight=1.0", "algorithm.desirable_weight=1.0"] if algo == "kto" else []
        lines[f"bfloat16-{algo}-{mode}"] = None, [*line, "hardware=zero2", "hardware.device=cpu"]
        first_losses[f"bfloat16-{algo}-{mode}"] = math.log(2) if algo == "dpo" else 0.5
    train_in_two_processes({name: config(shared, *together) for name, (_, together) in lines.items()}, uneven, tmp_path)
    for name, (alone, _) in lines.items():
        if alone is None:
            assert losses(tmp_path / name)[0] == pytest.approx(first_losses[name], abs=1e-3)
        else:
            train(config(shared, *alone), uneven, tmp_path / f"{name}-alone")
            assert_same_training(tmp_path / f"{name}-alone", tmp_path / name)


def lines_of(hardware, mode, algo, rows, at_once):
    """The command lines of a training in one process and in two."""
    rate = 1e-2 if mode == "lora" else 1e-3
    alone = [*EPOCHS, f"algo={algo}", f"mode={mode}", f"training.max_rows={rows}", f"training.learning_rate={rate}"]
    two = [f"hardware={hardware}", "hardware.device=cpu", "hardware.processes=2", f"training.per_device_batch_size={at_once}"]
    return alone, [*alone, *two]


def assert_same_training(one, two):
    """Two finished trainings have the same losses and weights."""
    import torch
    from safetensors.torch import load_file

    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    weights, others = (load_file(next((folder / "checkpoint").glob("*.safetensors"))) for folder in (one, two))
    assert weights.keys() == others.keys()
    for name in weights:
        torch.testing.assert_close(others[name].float(), weights[name].float(), rtol=0.05, atol=5e-4)


@pytest.mark.long
@pytest.mark.parametrize("algo", ["sft", "dpo", "dpo_sft", "simpo", "orpo"])
def test_rows_taken_a_few_at_a_time_count_as_rows_taken_at_once(shared, uneven, tmp_path, algo):
    """7 rows are three passes of 3, 2 and 2: a mean over passes would weigh their rows differently."""
    from cso_lab.training.train import train

    line = ["training.batch_size=12", "training.max_rows=7", "training.max_steps=3", "training.max_prompt_length=2000"]
    for at_once in (12, 3):
        cfg = config(shared, *line, f"algo={algo}", "mode=lora", f"training.per_device_batch_size={at_once}")
        train(cfg, uneven, tmp_path / str(at_once))
    assert losses(tmp_path / "3") == pytest.approx(losses(tmp_path / "12"), rel=1e-5)


@pytest.mark.long
def test_each_process_of_grpo_writes_its_own_replies_and_asks_the_judge_about_them(shared, tmp_path):
    from cso_lab.core.files import read_jsonl, write_jsonl
    from cso_lab.core.records import SEEKER, Turn, prompt_messages
    from cso_lab.core.strategies import EXTES
    from cso_lab.training.train import train

    prompt = prompt_messages([Turn(SEEKER, "I feel low today.")], EXTES)  # the same one for both
    rows = [{"prompt": prompt, "preferred": [EXTES.names[0]], "values": {}, "dialogue": "d"}] * 2
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    line = ["algo=grpo", "algorithm.num_generations=4", "algorithm.max_new_tokens=12", "training.batch_size=8"]
    line += ["training.max_prompt_length=2000", "training.max_steps=1", "generation.constrain=format"]
    cfg = config(shared, *line, "hardware=ddp", "hardware.device=cpu", "hardware.processes=2")
    assert train(cfg, tmp_path, tmp_path / "out")["steps"] == 1
    [entry] = log(tmp_path / "out")
    assert all(math.isfinite(entry[key]) for key in ("loss", "reward", "rewards/judge/mean", "kl"))
    asked = [{call["key"] for call in read_jsonl(tmp_path / "out" / "judge" / name / "calls.jsonl")} for name in "01"]
    assert all(asked) and not asked[0] & asked[1]


@pytest.mark.long
def test_killed_in_the_middle_two_processes_end_as_if_they_had_not_been(shared, data, tmp_path):
    """Ended by kill -9 of the run alone: its processes end by themselves, and the same command goes on."""
    import torch
    from safetensors.torch import load_file

    line = ["algo=dpo", "mode=full", "hardware=ddp", "hardware.device=cpu", "training.batch_size=4"]
    line += ["training.per_device_batch_size=2", "training.max_prompt_length=2000", "training.max_steps=24"]
    cfg = config(shared, *line, "training.save_steps=1", "training.warmup_ratio=0.2")
    whole = start(cfg, data, tmp_path / "whole")
    assert whole.wait(timeout=400) == 0, whole.stderr.read()[-2000:]
    killed = start(cfg, data, tmp_path / "killed")
    # 8 rows are two steps an epoch: every other checkpoint lies in the middle of one
    steps = tmp_path / "killed" / "steps"
    wait_for(lambda: any(int(file.parent.name.split("-")[1]) >= 5 for file in steps.glob("checkpoint-*/trainer_state.json")))
    killed.kill()
    killed.wait()
    wait_for(lambda: not workers_of(tmp_path / "killed"), 30)
    assert not (tmp_path / "killed" / "checkpoint").exists()
    again = start(cfg, data, tmp_path / "killed")
    assert again.wait(timeout=400) == 0, again.stderr.read()[-2000:]
    one, two = (load_file(next((tmp_path / name / "checkpoint").glob("*.safetensors"))) for name in ("whole", "killed"))
    for name in one:
        torch.testing.assert_close(two[name], one[name])
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)


@pytest.mark.long
def test_a_process_that_dies_ends_all_with_one_line_and_ctrl_c_too(shared, data, tmp_path):
    cfg = config(shared, *TWO, "algo=dpo", "mode=full", "hardware=ddp", "hardware.device=cpu", "training.max_steps=100000")
    run = start(cfg, data, tmp_path / "dying")
    wait_for(lambda: (tmp_path / "dying" / "train_log.jsonl").exists())
    victim = next(p for p in workers_of(tmp_path / "dying") if b"RANK=1" in open(f"/proc/{p}/environ", "rb").read())
    os.kill(victim, signal.SIGKILL)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 1 and "UserError: training stopped: process 1 was ended by SIGKILL" in said.splitlines()[-1]
    assert not workers_of(tmp_path / "dying")

    run = start(cfg, data, tmp_path / "stopped")
    wait_for(lambda: (tmp_path / "stopped" / "train_log.jsonl").exists())
    os.kill(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert "KeyboardInterrupt" in said.splitlines()[-1]
    assert not workers_of(tmp_path / "stopped")


@pytest.mark.long
def test_what_a_process_finds_wrong_is_the_runs_own_error(shared, data, tmp_path):
    from cso_lab.training.train import train

    cfg = config(shared, *TWO, "algo=sft", "mode=full", "hardware=ddp", "hardware.device=cpu", "training.learning_rate=1e30")
    with pytest.raises(UserError, match="^training stopped: .*at step.*; the same command goes on"):
        train(cfg, data, tmp_path)


SRUN = """#!/bin/sh
# Two nodes on one machine: the command once for each, both with the standard input, as srun --input=all does.
while [ "${1#--}" != "$1" ]; do shift; done
exec 3<&0
"$@" <&3 & first=$!
"$@" <&3 & second=$!
wait $first; one=$?; wait $second; two=$?
exit $((one > two ? one : two))
"""


@pytest.mark.long
def test_a_launcher_takes_the_processes_to_several_nodes(shared, data, tmp_path):
    from cso_lab.training.train import train

    srun = tmp_path / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    line = ["algo=dpo", "mode=full", "hardware=slurm", "hardware.device=cpu", f"hardware.launcher.0={srun}"]
    cfg = config(shared, *TWO, *line, "hardware.nodes=2", "hardware.deepspeed=null")
    check(cfg)
    assert train(cfg, data, tmp_path / "two")["steps"] == 3
    train(config(shared, *ONE, "algo=dpo", "mode=full", "training.per_device_batch_size=8"), data, tmp_path / "one")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
