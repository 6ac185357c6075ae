"""The memory of a forward and backward pass, found without weights, on tensors that have shapes and no values.

The pass is the training's own (adapter, shared prefixes, recomputation, attention, output layer), so that it changes with them. It is
traced with few layers and extended to all of them, since every layer takes the same.
"""

import copy
import functools
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch
from omegaconf import DictConfig
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cso_lab.training.prefix_forest import IGNORED, share_prefixes

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Text:
    """A prompt with its response: token ids, and how many of them are the prompt's."""

    ids: Sequence[int]
    prompt: int


@dataclass(frozen=True)
class TracedPass:
    """Parameters of a model, and bytes of a pass. Gradients of weights are not counted, except the output layer's, which comes first."""

    parameters: int
    trained: int
    # in matrices of linear layers without the output layer, which are quantized and cast
    linear: int
    # of the output layer, also where it is that of the embedding
    output: int
    # alive after the forward pass: what the backward pass needs
    kept: int
    # most until the backward pass has left the last layer; later there are fewer activations
    peak: int
    # most beyond `kept` while the output layer computes
    head: int

    def extended(self, other: "TracedPass", layers: tuple[int, int, int]) -> "TracedPass":
        """Returns the pass of a model with `layers[2]` layers, given those of `layers[0]` (this) and `layers[1]` (`other`)."""
        first, second, all_layers = layers

        def extend(name: str) -> int:
            one, two = getattr(self, name), getattr(other, name)
            return round(one + (two - one) * (all_layers - first) / (second - first))

        names = ("parameters", "trained", "linear", "output", "kept", "peak", "head")
        return TracedPass(**{name: extend(name) for name in names})


def trace(cfg: DictConfig, config: "PretrainedConfig", texts: Sequence[Text], device: str, dtype: torch.dtype) -> TracedPass:
    """Returns the pass of `cfg`'s training over these texts, of which one forward pass is made, for the model with this configuration.

    `dtype` is that of the computation. `device` is the training's: on GPUs the output layer's kernel works in place.
    """
    text_config = config.get_text_config()
    kinds = getattr(text_config, "layer_types", None)
    # As few layers as have one of every kind, whose masks the layers share.
    first = 1 if not kinds else max(kinds.index(kind) for kind in set(kinds)) + 1
    one, two = (_trace(cfg, _with_layers(config, layers), texts, device, dtype) for layers in (first, 2 * first))
    return one.extended(two, (first, 2 * first, text_config.num_hidden_layers))


def weights_dtype(cfg: DictConfig, dtype: torch.dtype) -> torch.dtype:
    """Returns the type of the backbone's weights while it is trained: full training updates float32 weights, unless DeepSpeed does."""
    return torch.float32 if cfg.finetune_mode.peft is None and cfg.hardware.deepspeed is None else dtype


def checkpoints_layers(cfg: DictConfig, device: str) -> bool:
    """Returns whether activations are recomputed layer by layer."""
    setting = cfg.training.gradient_checkpointing
    return device != "cpu" if setting == "auto" else setting


def _with_layers(config: "PretrainedConfig", layers: int) -> "PretrainedConfig":
    config = copy.deepcopy(config)
    text_config = config.get_text_config()
    kinds = getattr(text_config, "layer_types", None)
    text_config.num_hidden_layers = layers
    if kinds:
        text_config.layer_types = (list(kinds) * layers)[:layers]
    return config


def _trace(cfg: DictConfig, config: "PretrainedConfig", texts: Sequence[Text], device: str, dtype: torch.dtype) -> TracedPass:
    model, trained = _model(cfg, config, device, dtype)
    head = model.get_output_embeddings().weight
    for weight in trained.parameters():
        if weight.requires_grad and weight is not head:
            weight.register_post_accumulate_grad_hook(_drop_gradient)
    memory = _LiveMemory([*trained.parameters(), *trained.buffers()])
    marks = _Marks(memory)
    model.base_model.register_forward_hook(marks.before_head)
    _layers(model, config)[-1].register_forward_pre_hook(marks.before_last_layer, with_kwargs=True)
    batch = _batch(texts)
    with memory, _kernels_of(device):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16 and cfg.hardware.deepspeed is None):
            loss = trained(**batch, fused_lm_head=True, use_cache=False).log_probs.sum()
        kept = memory.now
        marks.after_forward(kept)
        loss.backward()
    linear = sum(module.weight.numel() for module in _linear_layers(trained, head))
    parameters = list(trained.parameters())
    return TracedPass(
        parameters=sum(weight.numel() for weight in model.parameters() if not _of_adapter(weight)),
        trained=sum(weight.numel() for weight in parameters if weight.requires_grad),
        linear=linear,
        output=head.numel(),
        kept=kept,
        peak=marks.peak,
        head=marks.head,
    )


def _model(cfg: DictConfig, config: "PretrainedConfig", device: str, dtype: torch.dtype) -> tuple["PreTrainedModel", object]:
    """Returns the backbone, and the model that is trained, which has an adapter or is the same."""
    from hydra.utils import instantiate
    from peft import get_peft_model
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    training = cfg.training
    # The mode is left before the pass: rows, masks and adapters are real, and what the backbone's weights touch has no values.
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = AutoModelForCausalLM.from_config(
            config, dtype=weights_dtype(cfg, dtype), attn_implementation=cfg.backbone.attn_implementation
        )
    for weight in model.parameters():
        weight.of_backbone = True
    add_fused_lm_head(model)
    if training.share_prefixes:
        share_prefixes(model, training.tokens_per_tree, training.max_activation_tokens, _form(training.tree_mask, device))
    trained = model
    if cfg.finetune_mode.peft is not None:
        trained = get_peft_model(model, instantiate(cfg.finetune_mode.peft, _convert_="all"))
    if checkpoints_layers(cfg, device):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if trained is not model:
            model.enable_input_require_grads()
    return model, trained.train()


def _layers(model: "PreTrainedModel", config: "PretrainedConfig") -> torch.nn.ModuleList:
    """Returns the model's decoder layers."""
    layers = config.get_text_config().num_hidden_layers
    lists = (module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == layers)
    return next(lists)


def _form(setting: str, device: str) -> str:
    """Returns the form of masks on the device, of those that need no GPU to be made."""
    return "dense" if device != "cpu" and setting in ("auto", "flex") else setting


def _batch(texts: Sequence[Text]) -> dict[str, torch.Tensor]:
    longest = max(len(text.ids) for text in texts)
    ids, attended = (torch.zeros(len(texts), longest, dtype=torch.long) for _ in range(2))
    labels = torch.full_like(ids, IGNORED)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.as_tensor(text.ids)
        attended[row, : len(text.ids)] = 1
        labels[row, text.prompt : len(text.ids)] = ids[row, text.prompt : len(text.ids)]
    return {"input_ids": ids, "attention_mask": attended, "labels": labels}


def _drop_gradient(weight: torch.Tensor) -> None:
    weight.grad = None


def _of_adapter(weight: torch.Tensor) -> bool:
    return not getattr(weight, "of_backbone", False)


def _linear_layers(model: torch.nn.Module, head: torch.Tensor) -> Iterator[torch.nn.Linear]:
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.weight is not head and not _of_adapter(module.weight):
            yield module


@contextmanager
def _kernels_of(device: str) -> Iterator[None]:
    """Within it, TRL's output layer takes no more memory than on the device; on GPUs its kernels work on a chunk in place."""
    if device == "cpu":
        yield
        return
    from trl.kernels import chunked_logprob

    with (
        patch.object(chunked_logprob, "_forward_tile", lambda *_, **__: None),
        patch.object(chunked_logprob, "_backward_tile", lambda *_, **__: None),
    ):
        yield


class _LiveMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that exist, apart from `ignored`: now, and most."""

    def __init__(self, ignored: Sequence[torch.Tensor]):
        super().__init__()
        self.now = self.most = 0
        self._ignored = [tensor.untyped_storage() for tensor in ignored]
        self._known: dict[int, object] = {id(storage): None for storage in self._ignored}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key not in self._known:
            self.now += size
            self.most = max(self.most, self.now)
            self._known[key] = weakref.ref(storage, functools.partial(self._remove, key, size))

    def _remove(self, key: int, size: int, _) -> None:
        if self._known.pop(key, None) is not None:
            self.now -= size


class _Marks:
    """Finds the most memory of a pass until the backward pass has left the last layer, and of that the output layer's.

    What comes after the last layer's backward pass takes less, since activations are freed, but for the gradients of the weights.
    """

    def __init__(self, memory: _LiveMemory):
        self._memory, self._before_head, self._kept = memory, 0, 0
        self._in_backward = False
        self.peak = self.head = 0

    def before_last_layer(self, module, args, kwargs) -> None:
        """A hook of the last layer."""
        states = args[0] if args else kwargs["hidden_states"]
        if states.requires_grad and not self._in_backward:
            states.register_hook(self._after_last_layer)

    def before_head(self, module, args, output) -> None:
        """A hook of the backbone without its output layer."""
        self._note()
        self._before_head = self._memory.now
        output.last_hidden_state.register_hook(self._after_head)

    def after_forward(self, kept: int) -> None:
        """Ends the forward pass, after which `kept` bytes exist."""
        self.head, self._kept = self._note() - self._before_head, kept
        self._in_backward = True

    def _after_head(self, gradient) -> None:
        self.head = max(self.head, self._note() - self._kept)

    def _after_last_layer(self, gradient) -> None:
        self._note()

    def _note(self) -> int:
        """Returns the most memory since the last call."""
        most, self._memory.most = self._memory.most, self._memory.now
        self.peak = max(self.peak, most)
        return most
