"""Weights quantized to 4 bits below an adapter (mode=qlora), by bitsandbytes."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cso_lab.config.cells import trains, zero_stage
from cso_lab.core.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def is_quantized(cfg: DictConfig) -> bool:
    """Returns whether the weights below the cell's adapter are quantized. Those of an untrained model never are."""
    return trains(cfg) and cfg.finetune_mode.get("quantization") is not None  # configurations of older runs lack the key


def check_quantization(cfg: DictConfig) -> None:
    """Raises UserError if the cell quantizes weights and cannot: its package is not installed, or the mode trains every weight."""
    if not is_quantized(cfg):
        return
    mode = f"mode={cfg.finetune_mode.name}"
    if cfg.finetune_mode.peft is None:
        raise UserError(
            f"{mode} quantizes weights (finetune_mode.quantization), which only an adapter is trained on: give mode=qlora"
        )
    if zero_stage(cfg) == 3:
        raise UserError(f"{mode} does not go with ZeRO-3, which cannot share out quantized weights: give hardware=ddp or zero2")
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"{mode} needs the package bitsandbytes, which is not installed: pip install -c constraints.txt '.[qlora]', or mode=lora"
        )


def loading_options(cfg: DictConfig, device: str, torch_dtype: "torch.dtype") -> dict:
    """Returns the options of `from_pretrained` by which weights are quantized on `device` while they are loaded.

    They are quantized from bfloat16, the type in which large models are published, whatever `torch_dtype` is computed in: an adapter
    then finds the same quantized weights in training and in generation.
    """
    import torch
    from hydra.utils import instantiate

    settings = instantiate(cfg.finetune_mode.quantization, bnb_4bit_compute_dtype=torch_dtype, _convert_="all")
    index = torch.cuda.current_device() if device == "cuda" else "cpu"
    return {"dtype": torch.bfloat16, "quantization_config": settings, "device_map": {"": index}}


def keep_unpacked(model: "PreTrainedModel") -> None:
    """Keeps bitsandbytes from packing the weights for a faster forward pass on CPUs with AVX-512's instructions for bfloat16.

    Packed, at the first forward pass in evaluation mode, they would have other values and pass on no gradients.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def set_dtypes(model: "PreTrainedModel", torch_dtype: "torch.dtype") -> None:
    """Makes a quantized model compute in `torch_dtype`, also its weights that are not quantized; those that are trained are float32.

    TRL's trainers cast adapters on quantized weights to bfloat16, in which most updates at these learning rates would be lost, and some
    of them cast norms and embeddings to float32.
    """
    import torch

    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(torch.float32 if weight.requires_grad else torch_dtype)
        elif (state := getattr(weight, "quant_state", None)) is not None:
            state.dtype = torch_dtype


def dequantized(model: "PreTrainedModel", torch_dtype: "torch.dtype") -> "PreTrainedModel":
    """Returns the model with the values that its quantized weights stand for, as weights of type `torch_dtype`."""
    return model.dequantize(dtype=torch_dtype)
