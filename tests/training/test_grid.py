"""Every trained cell of the grid on tiny models: six algorithms, LoRA and full, three architectures, two steps each."""

import json
import math

import pytest
from trainings import ALGOS, ARCHITECTURES, config

QUICK = {("tiny_llama", "lora", "simpo"), ("tiny_qwen", "lora", "orpo"), ("tiny_gemma", "full", "kto")}
CELLS = [
    pytest.param(*cell, marks=() if cell in QUICK else pytest.mark.long)
    for cell in ((backbone, mode, algo) for backbone in ARCHITECTURES for mode in ("lora", "full") for algo in ALGOS)
]


def test_the_grid_has_36_cells():
    assert len(CELLS) == 36


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
