"""Attention over the tokens of a prefix tree, with a mask by which a token attends to its ancestors only.

In a prefix tree in pre-order, token j attends to token i exactly if i <= j < end[i]. The mask has one of three forms: `blocks` of queries
with the keys they attend to (SDPA, layers without a window), `dense` (SDPA or eager, one mask for all layers of a kind) and `flex`
(FlexAttention, see `flex_attention`).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from cso_lab.core.errors import UserError
from cso_lab.training.flex_attention import flex, pad_tree, tree_block_mask

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Queries of a tree that are computed together on CPUs, where masked scores are computed too and only missing keys save time.
_BLOCK = 128
# Names under which the attentions below are registered with transformers.
_PACKED = "packed_sdpa"
_TREE_FLEX = "tree_flex"
# The library's own FlexAttention, which takes no mask of another form.
_FLEX = "flex_attention"


@dataclass(frozen=True)
class Block:
    """The queries `first` to `last` - 1, and the keys that any of them attends to."""

    first: int
    last: int
    keys: torch.Tensor  # (keys,), indices
    mask: torch.Tensor  # (1, 1, query heads of one key head x (last - first), keys), added to the scores


def ancestors(end: torch.Tensor, depth: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Returns (query, key) bool: whether the key is the query itself or an ancestor, and within `window` positions if given."""
    token = torch.arange(len(end), device=end.device)
    attends = (token[None, :] <= token[:, None]) & (token[:, None] < end[None, :])
    return attends if window is None else attends & (depth[:, None] - depth[None, :] < window)


def use_tree_attention(config: "PretrainedConfig", form: str, device: str) -> None:
    """Makes a model with this configuration accept masks of this form of `training.tree_mask`; calls with other masks are not affected.

    It stays so after a forward pass, because the backward pass runs the layers again if activations are recomputed. `device` is the
    type of device that the pass runs on. Raises UserError if the form does not go with the model's attention.
    """
    previous = config._attn_implementation
    if form in ("blocks", "dense") and previous == _FLEX:
        raise UserError(f"training.tree_mask={form} goes with backbone.attn_implementation=sdpa or eager, not {previous}")
    on_gpu = device == "cuda" and previous in ("sdpa", "eager", _PACKED)
    if form == "flex" or (form == "auto" and (on_gpu or previous in (_FLEX, _TREE_FLEX))):
        config._attn_implementation = _TREE_FLEX
    elif previous == "sdpa":
        config._attn_implementation = _PACKED


@contextmanager
def tree_attention_enabled(config: "PretrainedConfig") -> Iterator[None]:
    """Makes a model with this configuration accept `blocks` and `dense` masks within the context. Only for passes without gradients."""
    previous = config._attn_implementation
    if previous in ("sdpa", _FLEX, _TREE_FLEX):
        # SDPA caps no scores.
        config._attn_implementation = (
            "eager" if getattr(config, "attn_logit_softcapping", None) and previous != "sdpa" else _PACKED
        )
    try:
        yield
    finally:
        config._attn_implementation = previous


def tree_inputs(
    tokens: torch.Tensor,
    depth: torch.Tensor,
    end: torch.Tensor,
    config: "PretrainedConfig",
    dtype: torch.dtype,
    form: str = "auto",
) -> dict:
    """Returns the arguments of a forward pass over one tree, given its fields, (tokens,) each: tokens, positions and mask.

    In the form `flex` tokens are appended, and so are their states to the model's output. Other arguments are those of `tree_mask`.
    """
    if config._attn_implementation == _TREE_FLEX:
        tokens, depth, end = pad_tree(tokens, depth, end)
    return {"input_ids": tokens[None], "position_ids": depth[None], **tree_mask(end, depth, config, dtype, form)}


def tree_mask(
    end: torch.Tensor, depth: torch.Tensor, config: "PretrainedConfig", dtype: torch.dtype, form: str = "auto"
) -> dict:
    """Returns the mask arguments of a forward pass over one tree, given its `end` and `depth` (tokens,).

    `form` is one of `training.tree_mask`, `dtype` the model's. Raises UserError if the model's layers do not allow the form.
    """
    used = attention_form(config, form, end.device.type, len(end))
    if used == "flex":
        return {"attention_mask": _by_kind(config, len(end), lambda window: tree_block_mask(end, depth, window))}
    if used == "blocks":
        # The mask is not used, but if there were none the model would build its own.
        unused = _by_kind(config, len(end), lambda window: torch.ones(1, 1, 1, 1, dtype=torch.bool))
        return {"attention_mask": unused, "tree_blocks": _blocks(ancestors(end, depth), config, dtype)}
    return {"attention_mask": dense_mask(lambda window: ancestors(end, depth, window)[None, None], config, dtype, len(end))}


def attention_form(config: "PretrainedConfig", form: str, device: str, tokens: int) -> str:
    """Returns the form of the mask, `blocks`, `dense` or `flex`, of a tree of so many tokens on a device of this type.

    The model accepts masks already (see `use_tree_attention`); `form` is one of `training.tree_mask`. Raises UserError if the model's
    layers do not allow the form.
    """
    if config._attn_implementation == _TREE_FLEX:
        return "flex"
    takes_blocks = config._attn_implementation == _PACKED and set(_windows(config, tokens).values()) == {None}
    if form == "blocks" and not takes_blocks:
        raise UserError(
            "training.tree_mask=blocks needs SDPA and layers that all see everything before them: use dense or flex"
        )
    return "blocks" if takes_blocks and (form == "blocks" or (form == "auto" and device == "cpu")) else "dense"


def dense_mask(
    attends: Callable[[int | None], torch.Tensor], config: "PretrainedConfig", dtype: torch.dtype, positions: int | None = None
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Returns `attends(window)`, (batch, 1, queries, keys) bool, as the mask that the model's attention adds to its scores.

    For a model with several kinds of layers it is {kind of layer: mask}; `positions` is as in `_windows`. Raises UserError if the
    attention takes no mask.
    """
    implementation = config._attn_implementation
    if implementation not in (_PACKED, "eager"):
        raise UserError(
            f"prefixes are shared by an attention that takes a mask, not {implementation!r}: use backbone.attn_implementation=sdpa or"
            " eager, or training.share_prefixes=false"
        )

    def mask_of(window: int | None) -> torch.Tensor:
        mask = _additive(attends(window), dtype)
        return _packed_mask(mask, config) if implementation == _PACKED else mask

    return _by_kind(config, positions, mask_of)


def _additive(attends: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns a bool mask as numbers to add to scores.

    SDPA would convert a bool mask to the same in every layer, and keep each of them for the backward pass. Eager attention adds it.
    """
    return torch.zeros(attends.shape, dtype=dtype, device=attends.device).masked_fill(~attends, torch.finfo(dtype).min)


def _packed_mask(mask: torch.Tensor, config: "PretrainedConfig") -> torch.Tensor:
    """Returns a mask (..., queries, keys) as `_packed` takes it: repeated for the query heads of one key head."""
    return mask.repeat(1, 1, _group(config), 1)


def _group(config: "PretrainedConfig") -> int:
    """Returns the number of query heads of one key head."""
    return config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _windows(config: "PretrainedConfig", positions: int | None = None) -> dict[str, int | None]:
    """Returns {kind of layer: its sliding window in tokens, None if it attends to all}. Raises UserError for any other kind.

    A window of at least `positions` tokens, where that is given, hides nothing and is None.
    """
    window = getattr(config, "sliding_window", None)
    if window is not None and positions is not None and window >= positions:
        window = None
    window_by_kind = {"full_attention": None, "sliding_attention": window}
    # A model without kinds of layers has its window, if any, in all of them.
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    if unknown := kinds - window_by_kind.keys():
        raise UserError(f"no mask is known for layers of {sorted(unknown)}: use training.share_prefixes=false")
    return {kind: window_by_kind[kind] for kind in kinds}


def _by_kind(config: "PretrainedConfig", positions: int | None, mask_of: Callable[[int | None], object]):
    """Returns `mask_of(window)` in the way the model takes it: as {kind of layer: mask}, or one mask for a model without kinds of layers.

    Kinds with the same window have the same mask. transformers takes a single mask for full layers only, too.
    """
    windows = _windows(config, positions)
    masks = {window: mask_of(window) for window in set(windows.values())}
    if not getattr(config, "layer_types", None) or windows.keys() == {"full_attention"}:
        return next(iter(masks.values()))
    return {kind: masks[window] for kind, window in windows.items()}


def _blocks(attends: torch.Tensor, config: "PretrainedConfig", dtype: torch.dtype) -> list[Block]:
    """Returns the blocks of a (query, key) bool mask, for a model of this configuration and type."""
    blocks = []
    for first in range(0, len(attends), _BLOCK):
        rows = attends[first : first + _BLOCK]
        keys = rows.any(0).nonzero().squeeze(1)
        mask = _packed_mask(_additive(rows[:, keys][None, None], dtype), config)
        blocks.append(Block(first, first + len(rows), keys, mask))
    return blocks


def _packed_sdpa(module, query, key, value, attention_mask, scaling=None, tree_blocks: list[Block] | None = None, **kwargs):
    """SDPA under a mask. Shapes as in transformers: (batch, heads, tokens, width) in, (batch, tokens, heads, width) out."""
    if attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **kwargs)
    if tree_blocks is None:
        return _packed(query, key, value, attention_mask, scaling).transpose(1, 2), None
    outputs = [
        _packed(
            query[:, :, block.first : block.last],
            key.index_select(2, block.keys),
            value.index_select(2, block.keys),
            block.mask,
            scaling,
        )
        for block in tree_blocks
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _packed(query, key, value, mask, scaling):
    """Returns the attention of queries (batch, heads, queries, width).

    The query heads of one key head are packed into one head with more queries, so that keys and values are not repeated. The mask of
    a tree is repeated for them already (see `_packed_mask`).
    """
    batch, heads, queries, width = query.shape
    group = heads // key.shape[1]
    if group > 1:
        query = query.reshape(batch, key.shape[1], group * queries, width)
        if mask.shape[2] == queries:  # a mask that the model built itself
            mask = mask.repeat(1, 1, group, 1)
    output = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(batch, heads, queries, width)


def _tree_flex(module, query, key, value, attention_mask, scaling=None, softcap: float | None = None, **kwargs):
    """FlexAttention under the mask of a tree, and the model's eager attention under any other. Shapes are those of `_packed_sdpa`."""
    if kwargs.get("s_aux") is not None or kwargs.get("position_bias") is not None:
        raise UserError(
            "training.tree_mask=flex knows no attention sinks and no position biases: use training.share_prefixes=false"
        )
    if not isinstance(attention_mask, BlockMask):
        eager = sys.modules[type(module).__module__].eager_attention_forward
        capped = {} if softcap is None else {"softcap": softcap}
        return eager(module, query, key, value, attention_mask, scaling=scaling, **capped, **kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return flex(query, key, value, attention_mask, scale, softcap).transpose(1, 2), None


AttentionInterface.register(_PACKED, _packed_sdpa)
AttentionInterface.register(_TREE_FLEX, _tree_flex)
# The masks that a model builds itself for these attentions, in calls without a mask or with one of padding.
AttentionMaskInterface.register(_PACKED, sdpa_mask)
AttentionMaskInterface.register(_TREE_FLEX, eager_mask)
