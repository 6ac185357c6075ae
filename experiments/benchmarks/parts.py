"""Where the time of an optimizer step goes: prefix trees, attention, matrix products, output layer, optimizer."""

from contextlib import ExitStack
from functools import partial, wraps
from unittest.mock import patch

from experiments.benchmarks.steps import OPTIMIZER, Step

PARTS = ("fold", "attention", "matrix products", "head", "optimizer", "other")
_FOLD = "benchmark: fold"
# What is called of `prefix_forest` to make trees, and masks from them.
_FOLDING = ("build_prefix_forest", "tree_mask", "tree_inputs")
# What names of operations of attention contain. bmm and softmax are those of eager attention: linear layers use mm.
_ATTENTION = ("scaled_dot_product", "attention", "flashattn", "fmha", "triton_tem", "aten::bmm", "aten::_softmax")
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::_addmm", "aten::linear", "aten::matmul", "mkldnn")


def seconds_by_part(step: Step, vocabulary: int, batches: int | None = None) -> dict[str, float]:
    """Seconds of each part of the step, or of its first few batches, with the optimizer: of the GPU's own time if the model is there.

    The fold, the making of trees and their masks, is always the processor's time. `vocabulary` is by what operations of the output layer
    are recognized: one of their arguments has that size.
    """
    from torch.profiler import ProfilerActivity, profile

    from cso_lab.training import prefix_forest

    on_gpu = step.model.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with ExitStack() as stack:
        for name in filter(partial(hasattr, prefix_forest), _FOLDING):
            stack.enter_context(patch.object(prefix_forest, name, _recorded(getattr(prefix_forest, name))))
        profiler = stack.enter_context(profile(activities=activities, record_shapes=True))
        step.take(batches, update=True)
    seconds = dict.fromkeys(PARTS, 0.0)
    known: dict[int, str] = {}
    for event in profiler.events():
        if "CPU" not in str(event.device_type):
            continue
        part = _part(event, vocabulary, known)
        if part == "fold":
            seconds[part] += event.cpu_time_total / 1e6 if event.name == _FOLD else 0.0
        else:
            seconds[part] += (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
    return seconds


def _recorded(function):
    from torch.profiler import record_function

    @wraps(function)
    def recorded(*args, **kwargs):
        with record_function(_FOLD):
            return function(*args, **kwargs)

    return recorded


def _part(event, vocabulary: int, known: dict[int, str]) -> str:
    """The part an operation belongs to: that of the operation it is part of, where it is not more special itself."""
    if id(event) not in known:
        above = _part(event.cpu_parent, vocabulary, known) if event.cpu_parent is not None else "other"
        own = _own_part(event, vocabulary) if above in ("other", "matrix products") else above
        known[id(event)] = above if own == "other" else own
    return known[id(event)]


def _own_part(event, vocabulary: int) -> str:
    name = event.name.lower()
    if name == _FOLD:
        return "fold"
    if name == OPTIMIZER:
        return "optimizer"
    if "logprob" in name or ("embedding" not in name and any(vocabulary in shape for shape in _shapes(event))):
        return "head"
    if any(word in name for word in _ATTENTION):
        return "attention"
    return "matrix products" if name.startswith(_PRODUCTS) else "other"


def _shapes(event) -> list:
    return [shape for shape in event.input_shapes or [] if isinstance(shape, list)]
