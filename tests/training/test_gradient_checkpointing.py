"""Gradient checkpointing changes no number: whole trainings with it and without, in one process and in two, and through run.py."""

import json

import pytest
from project import run_py
from trainings import config, train_in_two_processes

# One algorithm of each trainer class.
TRAINERS = [("dpo", "lora"), ("kto", "full"), ("sft", "full"), ("simpo", "lora"), ("orpo", "full")]


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.long
def test_two_processes_log_the_same_losses_with_it_and_without(shared, data, tmp_path):
    cfgs = {}
    for algo, mode in TRAINERS:
        for checkpointing in ("true", "false"):
            line = [f"algo={algo}", f"mode={mode}", f"training.gradient_checkpointing={checkpointing}", "hardware.processes=2"]
            line += ["training.max_prompt_length=2000", "training.batch_size=8", "training.max_steps=3"]
            cfgs[f"{algo}-{checkpointing}"] = config(shared, *line)
    of_ranks = train_in_two_processes(cfgs, data, tmp_path)
    for algo, _ in TRAINERS:
        again, kept = (losses(tmp_path / f"{algo}-{checkpointing}") for checkpointing in ("true", "false"))
        assert len(again) == 3 and again == pytest.approx(kept, rel=1e-5)
        tokens = [(s["tokens_computed"], s["tokens_as_rows"], s["token_ratio"]) for s in of_ranks[f"{algo}-true"]]
        computed, as_rows, ratio = tokens[0]
        assert tokens[0] == tokens[1] and 0 < computed < as_rows and ratio == round(as_rows / computed, 3)


@pytest.mark.long
def test_a_run_logs_the_same_losses_with_it_and_without(tmp_path):
    line = ["stages=[search,dataset,train]", "hardware=cpu", f"shared_dir={tmp_path}/shared", "data.seed_dialogues=2"]
    line += ["algo=dpo", "training.dtype=float32", "training.batch_size=8", "training.max_steps=3", "training.warmup_ratio=0"]
    line += ["training.learning_rate=1e-2"]
    line += ["backbone=tiny_llama"]
    grid = "training.gradient_checkpointing=true,false"
    run = run_py("-m", *line, grid, f"hydra.sweep.dir={tmp_path}/sweep", timeout=900)
    assert run.returncode == 0, run.stderr[-3000:]
    cells = {}
    for log in (tmp_path / "sweep").glob("*/train_log.jsonl"):
        cells["gradient_checkpointing: true" in (log.parent / "config.yaml").read_text(encoding="utf-8")] = log.parent
    assert len(set(losses(cells[False]))) == 3
    assert losses(cells[True]) == pytest.approx(losses(cells[False]), rel=1e-5)

    two = run_py(*line, "hardware=ddp", "hardware.device=cpu", f"hydra.run.dir={tmp_path}/two", timeout=300)
    assert two.returncode == 0, two.stderr[-3000:]
    of_two = json.loads((tmp_path / "two" / "training.json").read_text(encoding="utf-8"))
    one = json.loads((cells[False] / "training.json").read_text(encoding="utf-8"))
    # Both processes' tokens, and of a batch of eight pairs four a process: less is shared, but it is.
    assert of_two["tokens_as_rows"] == pytest.approx(one["tokens_as_rows"], rel=0.2)
    assert 0.6 * one["token_ratio"] < of_two["token_ratio"] <= one["token_ratio"]
