"""Trained cells of the grid on tiny models: six algorithms, LoRA and full, the architectures in turn, two steps each.

The losses and gradients of all 36 cells are compared with TRL's in test_shared_forward.py.
"""

import json
import math
from itertools import cycle, product

import pytest
from trainings import ALGOS, ARCHITECTURES, config

QUICK = ("sft", "kto", "orpo")
CELLS = [
    pytest.param(backbone, mode, algo, marks=() if mode == "lora" and algo in QUICK else pytest.mark.long)
    for backbone, (algo, mode) in zip(cycle(ARCHITECTURES), product(ALGOS, ("lora", "full")), strict=False)
]


@pytest.mark.parametrize(("backbone", "mode", "algo"), CELLS)
def test_two_steps_of_a_cell_change_its_weights(shared, data, tmp_path, backbone, mode, algo):
    import torch

    from cso_lab.training.backbone import load_model
    from cso_lab.training.train import train

    cfg = config(shared, f"backbone={backbone}", f"mode={mode}", f"algo={algo}", "training.max_prompt_length=2000")
    summary = train(cfg, data, tmp_path)
    assert summary["steps"] == 2 and summary["rows"]["used"] == summary["rows"]["read"] > 0
    steps = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    assert all(math.isfinite(step["loss"]) and step["loss"] > 0 and step["grad_norm"] > 0 for step in steps)
    before, after = load_model(cfg).state_dict(), load_model(cfg, tmp_path / "checkpoint").state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(weight.isfinite().all() for weight in after.values())
