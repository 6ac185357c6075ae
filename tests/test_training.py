"""Training by TRL's own trainers on tiny random models: checkpoints, logs, and rows that keep their responses."""

import json
import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cso_lab.dialogue import SEEKER, Turn, prompt_messages
from cso_lab.files import write_jsonl
from cso_lab.naming import register_resolvers
from cso_lab.strategies import EXTES

CONF = Path(__file__).parents[1] / "conf"


@pytest.fixture
def data(tmp_path):
    prompt = [prompt_messages([Turn(SEEKER, f"I feel low today, number {i}.")], EXTES) for i in range(4)]
    good = [{"role": "assistant", "content": "(Emotional Validation) That is a lot to carry."}]
    bad = [{"role": "assistant", "content": "(Share Information) Sleep has several stages."}]
    write_jsonl(tmp_path / "data" / "pairs.jsonl", [{"prompt": p, "chosen": good, "rejected": bad} for p in prompt])
    write_jsonl(tmp_path / "data" / "sft.jsonl", [{"prompt": p, "completion": good} for p in prompt])
    return tmp_path / "data"


@pytest.mark.long
@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("algo", ["sft", "dpo"])
def test_two_steps_leave_a_safetensors_checkpoint_and_a_line_a_step(algo, mode, data, tmp_path):
    from cso_lab.training.train import train

    register_resolvers()
    overrides = ["backbone=tiny_llama", f"algo={algo}", f"mode={mode}", f"shared_dir={tmp_path}/shared", "training.max_steps=2"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=[*overrides, "training.batch_size=4", "training.learning_rate=1e-3"])
    summary = train(cfg, data, tmp_path / "out")
    assert summary["steps"] == 2 and summary["rows"]["used"] == 4
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2]
    assert all(math.isfinite(entry["loss"]) for entry in log)
    if algo == "dpo":  # before the first step policy and reference are one: loss = -log sigmoid(0)
        assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert list((tmp_path / "out" / "checkpoint").glob("*.safetensors"))
