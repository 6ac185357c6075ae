"""The memory of a training, by its parts: worked out by hand for given passes."""

import pytest
import torch
from project import composed
from trainings import config

from cso_lab.training.estimate import memory
from cso_lab.training.token_plan import TokenPlan
from cso_lab.training.traced_pass import TracedPass

# 1,000 weights, 600 of them in linear layers and 300 in the output layer; 5,000 bytes are kept for a tree of 10 tokens.
LORA = TracedPass(parameters=1000, trained=50, linear=600, output=300, kept=5000, peak=7000, head=2000)
FULL = TracedPass(parameters=1000, trained=1000, linear=600, output=300, kept=5000, peak=7000, head=2000)
# three trees of 10 tokens in the largest pass
TOKENS = TokenPlan(32, 1, 30, 30, 90, 3, at_once=30, tree=10, largest=[])


def parts(traced, *line, dtype=torch.float32, device="cpu"):
    held = memory(composed("hardware=cpu", *line), traced, TOKENS, device, dtype)
    return held.weights, held.gradients, held.optimizer, held.activations, held.working


@pytest.mark.parametrize(
    ("traced", "line", "dtype", "expected"),
    [
        (LORA, "mode=lora", torch.float32, (4200, 200, 400, 15000, 2000)),
        (LORA, "mode=lora", torch.bfloat16, (2200, 200, 400, 15000, 2000)),
        # trees are recomputed one by one
        (LORA, "mode=lora training.max_activation_tokens=20", torch.float32, (4200, 200, 400, 5000, 2000)),
        # the gradients come while the activations go
        (FULL, "mode=full", torch.float32, (4000, 0, 8000, 15000, 2000)),
        # 1,200 bytes of weights cast to bfloat16 are kept once
        (FULL, "mode=full", torch.bfloat16, (4000, 0, 8000, 12600, 2000)),
        # the reference model beside it
        (FULL, "mode=full training.precompute_ref_log_probs=false", torch.float32, (8000, 0, 8000, 15000, 2000)),
        (LORA, "mode=lora hardware.processes=2", torch.float32, (4200, 400, 400, 15000, 2000)),
    ],
)
def test_the_parts_of_a_device_s_memory(traced, line, dtype, expected):
    assert parts(traced, *line.split(), dtype=dtype) == expected


def test_zero_shares_out_optimizer_gradients_and_at_stage_3_weights():
    line = ("mode=full", "hardware.processes=4", "training.precompute_ref_log_probs=true")
    two = parts(FULL, "hardware=zero2", *line, dtype=torch.bfloat16, device="cuda")
    three = parts(FULL, "hardware=zero3", *line, "algo=sft", dtype=torch.bfloat16, device="cuda")
    assert (two[0], two[2]) == (2000, 3000) and (three[0], three[2]) == (500, 3000)


@pytest.mark.long
@pytest.mark.parametrize("algo", ["sft", "dpo", "kto"])
def test_the_planned_tokens_are_those_that_a_training_counts(shared, uneven, tmp_path, algo):
    from cso_lab.core.files import read_jsonl
    from cso_lab.training.backbone import load_chat_format
    from cso_lab.training.token_plan import plan_tokens
    from cso_lab.training.train import train

    cfg = config(
        shared, f"algo={algo}", "training.max_steps=-1", "training.num_train_epochs=1", "training.max_prompt_length=2000"
    )
    plan = plan_tokens(cfg, read_jsonl(uneven / f"{cfg.algorithm.rows}.jsonl"), load_chat_format(cfg))
    summary = train(cfg, uneven, tmp_path)
    assert (plan.rows, plan.steps) == (summary["rows"]["used"], summary["steps"])
    assert plan.computed == pytest.approx(summary["tokens_computed"], rel=0.05)
    assert plan.as_rows == pytest.approx(summary["tokens_as_rows"], rel=0.05)
