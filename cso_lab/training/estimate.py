"""The memory that a training takes of each of its devices, and the operations it computes, found without weights."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig

from cso_lab.config.cells import zero_stage
from cso_lab.training.backbone import resolve_dtype
from cso_lab.training.token_plan import TokenPlan, has_reference, reads_reference_before
from cso_lab.training.traced_pass import TracedPass, checkpoints_layers, trace, weights_dtype

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Bytes of a weight in nf4, and of its block's constant: a float32 for 64 weights, or with double quantization a byte, and a float32 for 256
# of those.
_NF4, _CONSTANT, _DOUBLE_CONSTANT = 1 / 2, 4 / 64, 1 / 64 + 4 / (64 * 256)
# Bytes a trained parameter of the states of an optimizer; of one that is not named, AdamW's two moments.
_OPTIMIZER_STATES = {"sgd": 0, "adafactor": 0, "adamw_bnb_8bit": 2, "adamw_8bit": 2, "paged_adamw_8bit": 2}
_ADAMW_STATES = 8
# Bytes that libraries hold of a training on CPUs by its second step, beside tensors: code that oneDNN compiled for shapes, its buffers, and
# what is imported late. 60 to 90 MB were measured.
_LIBRARIES = 64_000_000


@dataclass(frozen=True)
class Memory:
    """Bytes of one device (a process) at the moment at which a training takes most, from its second step on."""

    weights: int
    gradients: int
    optimizer: int
    # what the backward pass needs of all trees of the largest pass, as far as they are kept at once
    activations: int
    # beyond that: the output layer's chunk, or a layer's intermediate values, or what the optimizer's step takes
    working: int
    # of libraries, beside tensors; on GPUs the driver's own is not counted
    libraries: int = 0

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training takes: parameters, memory and operations (of all devices)."""

    parameters: int
    trained: int
    memory: Memory
    # of the output layer's chunk, a part of `memory.working` where that is the largest
    head: int
    # gradients, activations and working memory while the backward pass begins, and after it
    operations: float


def estimate_training(
    cfg: DictConfig, config: "PretrainedConfig", tokens: TokenPlan, device: str, traces: dict[tuple, TracedPass] | None = None
) -> TrainingEstimate:
    """Returns what `cfg`'s training takes on a device ("cpu" or "cuda") for the model with this configuration.

    `traces` keeps passes for other settings of the same cell, since many change none.
    """
    dtype = resolve_dtype(cfg.training.dtype, device) if device == "cpu" else _gpu_dtype(cfg)
    traces, training = {} if traces is None else traces, cfg.training
    key = (
        cfg.finetune_mode.peft is None,
        cfg.hardware.deepspeed is None,
        training.gradient_checkpointing,
        training.tokens_per_tree,
        training.max_activation_tokens,
    )
    if key not in traces:
        traces[key] = trace(cfg, config, tokens.largest, device, dtype)
    traced = traces[key]
    return TrainingEstimate(
        parameters=traced.parameters,
        trained=traced.trained,
        memory=memory(cfg, traced, tokens, device, dtype),
        head=traced.head,
        operations=operations(cfg, config, traced, tokens, device),
    )


def memory(cfg: DictConfig, traced: TracedPass, tokens: TokenPlan, device: str, dtype: torch.dtype) -> Memory:
    """Returns the memory of one device, given the pass over the largest tree."""
    hardware, full = cfg.hardware, cfg.finetune_mode.peft is None
    stage = zero_stage(cfg)
    optimizer_share, gradient_share, weight_share = (hardware.processes if stage >= least else 1 for least in (1, 2, 3))
    weights = _weights(cfg, traced, dtype) // weight_share
    if full and has_reference(cfg) and not reads_reference_before(cfg):
        weights += traced.parameters * dtype.itemsize // weight_share
    trained_size = dtype.itemsize if stage else torch.float32.itemsize
    gradients = traced.trained * trained_size // gradient_share
    if hardware.processes > 1 and not stage:
        gradients *= 2  # plain data parallelism sums them in buckets of its own
    states = _OPTIMIZER_STATES.get(cfg.training.optim, _ADAMW_STATES)
    if stage and dtype != torch.float32:
        states += torch.float32.itemsize  # DeepSpeed's weights that are updated
    optimizer = 0 if hardware.get("offload") else traced.trained * states // optimizer_share
    kept = _kept(cfg, traced, tokens, dtype, checkpoints_layers(cfg, device))
    backward = kept + traced.peak - traced.kept
    # After the backward pass there are all gradients, and no activations; PyTorch's AdamW makes temporary values of all of them at once on
    # GPUs and of one weight after the other on CPUs.
    step = traced.trained * torch.float32.itemsize // optimizer_share if device != "cpu" else traced.output * full * 4
    libraries = _LIBRARIES if device == "cpu" else 0
    after = gradients + step
    if after > backward:
        return Memory(weights, gradients, optimizer, 0, step, libraries)
    return Memory(weights, gradients if not full else 0, optimizer, kept, traced.peak - traced.kept, libraries)


def operations(cfg: DictConfig, config: "PretrainedConfig", traced: TracedPass, tokens: TokenPlan, device: str) -> float:
    """Returns the floating-point operations of a training's matrix products and attention.

    A forward pass takes two a weight and token; a backward pass as many for the activations, and in full training as many for the weights.
    """
    text = config.get_text_config()
    width = text.num_attention_heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    lengths = [len(text.ids) for text in tokens.largest]
    attended = sum(lengths) / len(lengths)
    a_token = 2 * traced.linear + 4 * attended / 2 * width * text.num_hidden_layers
    passes = 3 if cfg.finetune_mode.peft is None else 2
    recomputed = tokens.at_once > cfg.training.max_activation_tokens and tokens.at_once > tokens.tree
    again = checkpoints_layers(cfg, device) + recomputed
    reference = tokens.computed - tokens.learnt
    head = 2 * traced.output * tokens.scored
    return a_token * (tokens.learnt * (passes + again) + reference) + head * (passes + 1)


def backbone_bytes(cfg: DictConfig, parameters: int, linear: int, itemsize: int) -> int:
    """Returns the bytes of the backbone's weights of `itemsize` bytes each, of which the `linear` ones may be quantized."""
    quantization = cfg.finetune_mode.get("quantization")
    if not quantization:
        return parameters * itemsize
    constant = _DOUBLE_CONSTANT if quantization.get("bnb_4bit_use_double_quant") else _CONSTANT
    quantized = linear * (_NF4 + constant) if quantization.get("load_in_4bit") else linear
    return round(quantized) + (parameters - linear) * itemsize


def _weights(cfg: DictConfig, traced: TracedPass, dtype: torch.dtype) -> int:
    """Returns the bytes of the backbone's weights and an adapter's."""
    backbone = backbone_bytes(cfg, traced.parameters, traced.linear, weights_dtype(cfg, dtype).itemsize)
    if cfg.finetune_mode.peft is None:
        return backbone
    return backbone + traced.trained * (dtype.itemsize if zero_stage(cfg) else torch.float32.itemsize)


def _kept(cfg: DictConfig, traced: TracedPass, tokens: TokenPlan, dtype: torch.dtype, checkpointed: bool) -> int:
    """Returns the bytes of activations of the trees that are kept at once."""
    recomputed = tokens.at_once > cfg.training.max_activation_tokens
    if recomputed or not tokens.tree:
        return traced.kept
    # Weights that autocast has cast are kept once, whatever the number of trees.
    autocast = weights_dtype(cfg, dtype) != dtype
    casts = traced.linear * dtype.itemsize if autocast and not checkpointed else 0
    return round(casts + (traced.kept - casts) * tokens.at_once / tokens.tree)


def _gpu_dtype(cfg: DictConfig) -> torch.dtype:
    """Returns the type a GPU computes in, also where there is none here to ask."""
    name = cfg.training.dtype
    return torch.bfloat16 if name == "auto" else getattr(torch, name)
