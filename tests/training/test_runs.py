"""Whole trainings on tiny random models: what they start from, leave, survive, and refuse."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import forking
import pytest
from project import ROOT
from trainings import config

from cso_lab.core.errors import UserError
from cso_lab.core.files import write_jsonl
from cso_lab.core.records import SEEKER, Turn, prompt_messages
from cso_lab.core.strategies import EXTES


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prompts = [prompt_messages([Turn(SEEKER, f"I feel low today, number {i}.")], EXTES) for i in range(8)]
    good = [{"role": "assistant", "content": "(Emotional Validation) That is a lot to carry."}]
    bad = [{"role": "assistant", "content": "(Share Information) Sleep has several stages."}]
    write_jsonl(folder / "pairs.jsonl", [{"prompt": p, "chosen": good, "rejected": bad} for p in prompts])
    write_jsonl(folder / "sft.jsonl", [{"prompt": p, "completion": good} for p in prompts])
    write_jsonl(folder / "prompts.jsonl", [{"prompt": p, "preferred": ["Affirmation"], "values": {}} for p in prompts])
    write_jsonl(
        folder / "kto.jsonl", [{"prompt": p, "completion": r, "label": r is good} for p in prompts for r in (good, bad)]
    )
    return folder


def log(folder):
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(checkpoint):
    from safetensors.torch import load_file

    return load_file(next(checkpoint.glob("*.safetensors")))


def test_effective_batch_is_shared_out_or_refused(shared):
    from cso_lab.training.arguments import batches

    assert batches(config(shared, "training.batch_size=32", "training.per_device_batch_size=4")) == (4, 8)
    assert batches(config(shared, "training.batch_size=32")) == (32, 1)
    assert batches(config(shared, "training.batch_size=32", "training.share_prefixes=false")) == (4, 8)
    with pytest.raises(UserError, match=r"batch_size=6 is no multiple of training.per_device_batch_size \(4\)"):
        batches(config(shared, "training.batch_size=6", "training.per_device_batch_size=4"))
    assert batches(config(shared, "training.batch_size=32", "hardware.processes=2")) == (16, 1)


def test_a_learning_rate_that_breaks_the_model_stops_with_one_line(shared, data, tmp_path):
    from cso_lab.training.train import train

    cfg = config(shared, "algo=sft", "mode=full", "training.learning_rate=1e30", "training.max_steps=4")
    with pytest.raises(UserError, match="training stopped: .* at step"):
        train(cfg, data, tmp_path)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, "bfloat16"),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, "float32"),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "bfloat16"),
        ({"avx512_bf16": False, "cpu_name": "AMD EPYC"}, "float32"),
        ({}, "float32"),
    ],
)
def test_the_processor_decides_the_type_of_numbers(capabilities, dtype, monkeypatch):
    import torch

    from cso_lab.training.backbone import resolve_dtype

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_dtype("auto", "cpu") == getattr(torch, dtype)


def test_impossible_settings_are_said_in_one_line(shared, data, tmp_path):
    from cso_lab.training.train import train

    with pytest.raises(UserError, match="unknown training.lr_scheduler_type 'cosinus': did you mean 'cosine'"):
        train(config(shared, "training.lr_scheduler_type=cosinus"), data, tmp_path)
    with pytest.raises(UserError, match="settings of algo=dpo .* do not go together"):
        train(config(shared, "training.warmup_ratio=-1"), data, tmp_path)
    with pytest.raises(UserError, match="algo=base trains nothing"):
        train(config(shared, "algo=base"), data, tmp_path)


@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("algo", ["sft", "dpo"])
def test_a_training_leaves_only_safetensors_and_json(algo, mode, shared, data, tmp_path):
    import torch

    from cso_lab.training.backbone import load_model
    from cso_lab.training.train import train

    cfg = config(shared, f"algo={algo}", f"mode={mode}")
    summary = train(cfg, data, tmp_path)
    assert (summary["steps"], summary["rows"]["used"], summary["dtype"], summary["device"]) == (2, 8, "float32", "cpu")
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json", ".jinja", ".jsonl"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "train_log.jsonl"]
    assert [entry["step"] for entry in log(tmp_path)] == [1, 2]
    assert all(math.isfinite(entry["loss"]) for entry in log(tmp_path))
    if algo == "dpo":  # before the first step policy and reference are one: loss = -log sigmoid(0)
        assert log(tmp_path)[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    trained = weights(tmp_path / "checkpoint")
    if mode == "lora":
        assert any(value.abs().max() > 0 for name, value in trained.items() if "lora_B" in name)
    else:
        before = load_model(cfg).state_dict()
        assert any(not torch.equal(value, before[name]) for name, value in trained.items())


@pytest.mark.long
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_from_an_sft_checkpoint_it_is_start_and_reference_and_moves_with_the_run(mode, shared, data, tmp_path):
    """The first DPO loss is log 2, so reference and start are one; its log-probabilities are the SFT model's, not the base's."""
    import torch

    from cso_lab.training.backbone import load_model
    from cso_lab.training.train import train

    train(config(shared, "algo=sft", f"mode={mode}", "training.learning_rate=1e-2"), data, tmp_path / "sft")
    from_base, from_sft = (
        train(config(shared, "algo=dpo", f"mode={mode}"), data, tmp_path / name, start)
        for name, start in (("base", None), ("run", tmp_path / "sft" / "checkpoint"))
    )
    assert from_base["steps"] == from_sft["steps"] == 2
    first = {name: log(tmp_path / name)[0] for name in ("base", "run")}
    assert first["run"]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    # SFT made the preferred responses likelier
    assert first["run"]["logps/chosen"] > first["base"]["logps/chosen"] + 1

    cfg, ids = config(shared), torch.arange(20, 40)[None]
    with torch.inference_mode():
        before = load_model(cfg, tmp_path / "run" / "checkpoint")(ids).logits
        started = load_model(cfg, tmp_path / "sft" / "checkpoint")(ids).logits
        (tmp_path / "sft").rename(tmp_path / "gone")
        (tmp_path / "run").rename(tmp_path / "moved")
        after = load_model(cfg, tmp_path / "moved" / "checkpoint")(ids).logits
        base = load_model(cfg)(ids).logits
    assert torch.equal(before, after)
    # two small steps away from the SFT model, which itself is far from the base
    assert (after - started).abs().max() < (after - base).abs().max()


_RUN = """
import json, sys
from pathlib import Path
from omegaconf import OmegaConf
from cso_lab.training.train import train
train(OmegaConf.load(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("algo", "mode"),
    [("sft", "lora"), ("dpo", "full"), ("kto", "full"), ("orpo", "lora"), ("grpo", "lora")],  # a trainer class each
)
def test_a_training_killed_outright_ends_as_if_it_had_not_been(algo, mode, shared, data, tmp_path):
    import torch
    from omegaconf import OmegaConf

    # warm-up and decay make steps differ, so a wrong step count, order of rows or optimizer state would show
    line = [f"algo={algo}", f"mode={mode}", "training.max_steps=12", "training.save_steps=2", "training.warmup_ratio=0.2"]
    if algo == "grpo":  # three steps an epoch
        line += ["algorithm.num_generations=2", "algorithm.max_new_tokens=6", "generation.constrain=format"]
    cfg = config(shared, *line)
    OmegaConf.save(cfg, tmp_path / "config.yaml", resolve=True)

    def start(out):
        command = [sys.executable, "-c", _RUN, str(tmp_path / "config.yaml"), str(data), str(tmp_path / out)]
        return forking.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)

    assert start("whole").wait(timeout=300) == 0
    killed = start("killed")
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed" / "steps" / "checkpoint-4" / "trainer_state.json").exists():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "checkpoint").exists()

    assert start("killed").wait(timeout=300) == 0
    whole, resumed = (weights(tmp_path / name / "checkpoint") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    for name in whole:
        torch.testing.assert_close(resumed[name], whole[name])
    assert [entry["step"] for entry in log(tmp_path / "killed")] == list(range(1, 13))
    assert [entry["loss"] for entry in log(tmp_path / "killed")] == pytest.approx(
        [entry["loss"] for entry in log(tmp_path / "whole")], abs=1e-5
    )
    assert not (tmp_path / "killed" / "steps").exists()


def test_freed_memory_is_kept_only_while_a_cpu_trains(shared, data, tmp_path, monkeypatch):
    import ctypes
    import importlib

    import cso_lab.training
    from cso_lab.training.train import train

    asked, load = [], ctypes.CDLL
    library = SimpleNamespace(
        mallopt=lambda setting, value: asked.append((setting, value)), malloc_trim=lambda pad: asked.append("given back")
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name, *more, **options: load(name, *more, **options) if name else library)
    importlib.reload(cso_lab.training)
    assert asked == []
    train(config(shared, "algo=sft", "training.max_steps=1"), data, tmp_path)
    kept, defaults = {(-1, -1), (-4, 0)}, {(-1, 128 * 1024), (-4, 65536)}
    assert set(asked[:2]) == kept and set(asked[2:4]) == defaults and asked[4:] == ["given back"]
