"""Adapters on quantized weights (mode=qlora), and optimizer states on the CPU (hardware.offload)."""

import json
import math
import re
import sys
import warnings

import pytest
from project import CONF, composed
from trainings import ALGOS, config, trainer_of

from cso_lab.core.errors import UserError
from cso_lab.pipeline.cell_names import cell_name
from cso_lab.pipeline.check import check

LENGTH = "training.max_prompt_length=2000"


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def bitsandbytes():
    return pytest.importorskip("bitsandbytes")


@pytest.mark.parametrize("algo", ["kto", "dpo_after_sft"])
def test_qlora_takes_the_rows_of_lora_and_a_name_of_its_own(algo):
    line = (f"algo={algo}", "backbone=gemma")
    lora, qlora = (composed(*line, f"mode={mode}") for mode in ("lora", "qlora"))
    assert qlora.training == lora.training and qlora.algorithm == lora.algorithm
    assert qlora.finetune_mode.peft == lora.finetune_mode.peft
    assert qlora.finetune_mode.label == "QLoRA" and "-qlora-" in cell_name(qlora)
    assert cell_name(lora).rsplit("-", 1)[1] != cell_name(qlora).rsplit("-", 1)[1]


def test_every_row_of_the_tables_is_picked_by_the_modes_family():
    named = [
        file for file in CONF.rglob("*.yaml") if re.search(r"hyperparameters.*finetune_mode\.name", file.read_text("utf-8"))
    ]
    assert not named, "would look for rows of qlora"


def test_qlora_is_set_beside_no_number_of_the_paper():
    from cso_lab.reporting.cells import Cell
    from cso_lab.reporting.rows import paper_scores

    cells = {mode: Cell(None, "llama", "", "dpo", "", {}, 0, mode=mode) for mode in ("lora", "qlora")}
    assert paper_scores(cells["lora"]) and not paper_scores(cells["qlora"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mode=qlora", "mode=qlora needs the package bitsandbytes.* pip install -c constraints.txt '.\\[qlora\\]'"),
        ("mode=qlora hardware=zero3 hardware.device=cpu", "mode=qlora does not go with ZeRO-3.*ddp or zero2"),
        ("mode=qlora finetune_mode.peft=null", "mode=qlora quantizes weights .*which only an adapter is trained on"),
    ],
)
def test_quantized_weights_that_cannot_be_are_refused_before_the_search(monkeypatch, tmp_path, line, expected):
    from cso_lab.pipeline.preflight import preflight

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    cfg = composed("backbone=tiny_llama", "hardware=cpu", f"shared_dir={tmp_path}", *line.split())
    with pytest.raises(UserError, match=expected) as caught:
        preflight([(cfg, tmp_path, ["train", "generate"])])
    assert "\n" not in str(caught.value)


def test_an_untrained_model_is_never_quantized():
    from cso_lab.training.quantization import check_quantization, is_quantized

    cfg = composed("algo=base", "mode=qlora", "hardware=zero3")
    assert not is_quantized(cfg)
    check_quantization(cfg)


def test_offload_without_zero_is_refused():
    with pytest.raises(UserError, match="hardware.offload=true .* give hardware=zero2"):
        check(composed("mode=full", "hardware=ddp", "hardware.device=cpu", "hardware.offload=true"))
    with pytest.raises(UserError, match="hardware.offload=yes_please: should be a valid boolean"):
        check(composed("hardware.offload=yes_please"))


@pytest.mark.parametrize(("hardware", "stage"), [("zero2", 2), ("slurm", 3)])
def test_offload_keeps_the_optimizer_states_on_the_cpu(hardware, stage):
    from cso_lab.training.arguments import deepspeed_settings

    line = ("mode=full", f"hardware={hardware}", "hardware.device=cpu")
    plain, moved = (deepspeed_settings(composed(*line, *more).hardware, True) for more in ([], ["hardware.offload=true"]))
    assert "offload_optimizer" not in plain["zero_optimization"] and "zero_force_ds_cpu_optimizer" not in plain
    assert moved["zero_optimization"] == plain["zero_optimization"] | {
        "offload_optimizer": {"device": "cpu", "pin_memory": False}
    }
    assert moved["zero_optimization"]["stage"] == stage and moved["zero_force_ds_cpu_optimizer"] is False


@pytest.mark.long
def test_two_processes_train_alike_with_optimizer_states_on_the_cpu(shared, data, tmp_path):
    from cso_lab.training.train import train

    line = ["algo=dpo", "mode=full", LENGTH, "training.max_steps=3"]
    train(config(shared, *line), data, tmp_path / "one")
    line += ["hardware=zero2", "hardware.device=cpu", "hardware.processes=2", "hardware.offload=true"]
    train(config(shared, *line), data, tmp_path / "moved")
    assert losses(tmp_path / "moved") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("algo", ALGOS)
def test_qlora_trains_an_adapter_in_float32_and_that_is_the_model_measured(bitsandbytes, shared, data, tmp_path, algo):
    import torch

    from cso_lab.training.backbone import load_base, load_model, load_weights

    cfg = config(shared, f"algo={algo}", "mode=qlora", LENGTH, "training.learning_rate=1e-2")
    trainer, *_ = trainer_of(cfg, data, tmp_path)
    layers = [module for module in trainer.model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 14 and {layer.weight.dtype for layer in layers} == {torch.uint8}
    with warnings.catch_warnings():
        # of the kernel that passes on no gradients
        warnings.filterwarnings("error", message=".*autograd kernel was not registered")
        trainer.train()
    trained = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    # they began as zeros, so that gradients came through every layer
    assert all(weight.any() for name, weight in trained.items() if "lora_B" in name)
    trainer.model.save_pretrained(tmp_path / "checkpoint")
    ids = torch.arange(100, 140)[None]
    with torch.no_grad():
        own = trainer.model.eval()(input_ids=ids).logits
        measured = load_model(cfg, tmp_path / "checkpoint")(input_ids=ids).logits
        merged = load_weights(cfg, tmp_path / "checkpoint", torch.float32)(input_ids=ids).logits
        base = load_base(cfg, None, torch.float32)(input_ids=ids).logits
    torch.testing.assert_close(measured, own, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged, own, rtol=1e-4, atol=1e-5)
    assert (base - own).abs().max() > 1e-3


@pytest.mark.long
@pytest.mark.parametrize("algo", ["dpo", "simpo"])
def test_qlora_shares_prefixes_and_recomputes_exactly(bitsandbytes, shared, data, tmp_path, algo):
    from cso_lab.training.train import train

    line = [f"algo={algo}", "mode=qlora", LENGTH, "training.learning_rate=1e-2", "training.max_steps=3"]
    lines = {
        "trl": "training.share_prefixes=false",
        "trees": "training.share_prefixes=true",
        "recomputed": "training.gradient_checkpointing=true",
    }
    for name, more in lines.items():
        train(config(shared, *line, more), data, tmp_path / name)
    for name in ("trees", "recomputed"):
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "trl"), rel=1e-4)


@pytest.mark.long
def test_qlora_after_sft_starts_from_the_sft_model_quantized_again(bitsandbytes, shared, data, tmp_path):
    import torch

    from cso_lab.config.cells import start_of
    from cso_lab.training.backbone import load_model, load_weights
    from cso_lab.training.train import train

    line = ["algo=dpo_after_sft", "mode=qlora", LENGTH, "algorithm.start.training.learning_rate=1e-2"]
    cfg = config(shared, *line, "algorithm.start.training.max_steps=2")
    train(start_of(cfg), data, tmp_path / "sft")
    train(cfg, data, tmp_path / "dpo", tmp_path / "sft" / "checkpoint")
    assert losses(tmp_path / "dpo")[0] == pytest.approx(math.log(2), abs=1e-5)
    ids = torch.arange(100, 140)[None]
    with torch.no_grad():
        started = load_model(start_of(cfg), tmp_path / "sft" / "checkpoint")(input_ids=ids).logits
        measured = load_model(cfg, tmp_path / "dpo" / "checkpoint")(input_ids=ids).logits
        merged = load_weights(cfg, tmp_path / "dpo" / "checkpoint", torch.float32)(input_ids=ids).logits
        plain = load_model(config(shared, "algo=base"))(input_ids=ids).logits
    torch.testing.assert_close(merged, measured, rtol=1e-4, atol=1e-5)
    assert (measured - started).norm() < (plain - started).norm()


@pytest.mark.long
def test_two_processes_train_on_quantized_weights_alike(bitsandbytes, shared, data, tmp_path):
    from cso_lab.training.train import train

    line = ["algo=dpo", "mode=qlora", LENGTH, "training.learning_rate=1e-2", "training.max_steps=3"]
    train(config(shared, *line), data, tmp_path / "one")
    train(config(shared, *line, "hardware=zero2", "hardware.device=cpu"), data, tmp_path / "two")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
