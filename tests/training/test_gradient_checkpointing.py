"""Gradient checkpointing changes no number: whole trainings with it and without, in one process and in two, and through run.py."""

import json
import os
import subprocess
import sys

import pytest
from project import ROOT, run_py
from trainings import config

# One algorithm of each trainer class.
TRAINERS = [("dpo", "lora"), ("kto", "full"), ("sft", "full"), ("simpo", "lora"), ("orpo", "full")]

_WORKER = """
import os, sys
from pathlib import Path
from omegaconf import OmegaConf
from cso_lab.core.files import write_json
from cso_lab.training.train import train_here

folder, data = map(Path, sys.argv[1:])
for file in sorted(folder.glob("*.yaml")):
    out = folder / file.stem
    summary = train_here(OmegaConf.load(file), data, out, None)
    write_json(out / f"summary-{os.environ['RANK']}.json", summary)
"""


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.long
def test_two_processes_log_the_same_losses_with_it_and_without(shared, data, tmp_path):
    """All trainings one after the other in the same two processes, which take longer to start than to train."""
    from omegaconf import OmegaConf

    for algo, mode in TRAINERS:
        for checkpointing in ("true", "false"):
            line = [f"algo={algo}", f"mode={mode}", f"training.gradient_checkpointing={checkpointing}", "hardware.processes=2"]
            line += ["training.max_prompt_length=2000", "training.batch_size=8", "training.max_steps=3"]
            OmegaConf.save(config(shared, *line), tmp_path / f"{algo}-{checkpointing}.yaml", resolve=True)
    (tmp_path / "worker.py").write_text(_WORKER, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=localhost", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "worker.py"), str(tmp_path), str(data)], env=environment, check=True, timeout=900)
    for algo, _ in TRAINERS:
        again, kept = (losses(tmp_path / f"{algo}-{checkpointing}") for checkpointing in ("true", "false"))
        assert len(again) == 3 and again == pytest.approx(kept, rel=1e-5)
        of_ranks = [json.loads((tmp_path / f"{algo}-true" / f"summary-{rank}.json").read_text()) for rank in (0, 1)]
        tokens = [(of_rank["tokens_computed"], of_rank["tokens_as_rows"], of_rank["token_ratio"]) for of_rank in of_ranks]
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
