"""Attention over the tokens of a prefix tree, with a mask by which a token attends to its ancestors only.

In a prefix tree in pre-order, token j attends to token i exactly if i <= j < end[i].
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from cso_lab.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Queries of a tree that are computed together on CPUs, where masked scores are computed too and only missing keys save time.
_BLOCK = 128
# Name under which the attention below is registered with transformers.
_PACKED = "packed_sdpa"
_FLEX = "flex_attention"


@dataclass(frozen=True)
class Block:
    """The queries `first` to `last` - 1, and the keys that any of them attends to."""

    first: int
    last: int
    keys: torch.Tensor  # (keys,), indices
    attends: torch.Tensor  # (1, 1, last - first, keys), bool


def ancestors(end: torch.Tensor, depth: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Returns (query, key) bool: whether the key is the query itself or an ancestor, and within `window` positions if given."""
    token = torch.arange(len(end), device=end.device)
    attends = (token[None, :] <= token[:, None]) & (token[:, None] < end[None, :])
    return attends if window is None else attends & (depth[:, None] - depth[None, :] < window)


def use_tree_attention(config: "PretrainedConfig", form: str = "auto") -> None:
    """Makes a model with this configuration accept the masks of this module, of this form; calls with other masks are not affected.

    It stays so after a forward pass, because the backward pass runs the layers again if activations are recomputed.
    Raises UserError if the form does not go with the model's attention.
    """
    previous = config._attn_implementation
    if form in ("blocks", "dense") and previous == _FLEX:
        raise UserError(f"training.tree_mask={form} goes with backbone.attn_implementation=sdpa or eager, not {previous}")
    if form == "flex":
        config._attn_implementation = _FLEX
    elif previous == "sdpa":
        config._attn_implementation = _PACKED


@contextmanager
def tree_attention_enabled(config: "PretrainedConfig") -> Iterator[None]:
    """Makes a model with this configuration accept the masks of this module within the context. Only for passes without gradients."""
    previous = config._attn_implementation
    use_tree_attention(config)
    try:
        yield
    finally:
        config._attn_implementation = previous


def tree_mask(
    end: torch.Tensor, depth: torch.Tensor, config: "PretrainedConfig", dtype: torch.dtype, form: str = "auto"
) -> dict:
    """Returns the mask arguments of a forward pass over one tree, given its `end` and `depth` (tokens,).

    `form` is one of `training.tree_mask`, `dtype` the model's. Raises UserError if the model's layers do not allow the form.
    """
    windows = _windows(config)
    if config._attn_implementation == _FLEX:
        return {"attention_mask": _one_or_all({kind: _flex_mask(end, depth, window) for kind, window in windows.items()})}
    takes_blocks = config._attn_implementation == _PACKED and set(windows.values()) == {None}
    if form == "blocks" and not takes_blocks:
        raise UserError(
            "training.tree_mask=blocks needs SDPA and layers that all see everything before them: use dense or flex"
        )
    if takes_blocks and (form == "blocks" or (form == "auto" and end.device.type == "cpu")):
        # The mask is not used, but if there were none the model would build its own.
        return {"attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool), "tree_blocks": _blocks(ancestors(end, depth))}
    return {"attention_mask": dense_mask(lambda window: ancestors(end, depth, window)[None, None], config, dtype)}


def dense_mask(
    attends: Callable[[int | None], torch.Tensor], config: "PretrainedConfig", dtype: torch.dtype
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Returns `attends(window)`, (batch, 1, queries, keys) bool, as the mask that the model's attention adds to its scores.

    For a model with several kinds of layers it is {kind of layer: mask}. Raises UserError if the attention takes no mask.
    """
    implementation = config._attn_implementation
    if implementation not in (_PACKED, "eager"):
        raise UserError(
            f"prefixes are shared by an attention that takes a mask, not {implementation!r}: use backbone.attn_implementation=sdpa or"
            " eager, or training.share_prefixes=false"
        )

    def additive(window: int | None) -> torch.Tensor:
        # SDPA would convert a bool mask to the same in every layer.
        mask = attends(window)
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)

    return _one_or_all({kind: additive(window) for kind, window in _windows(config).items()})


def _windows(config: "PretrainedConfig") -> dict[str, int | None]:
    """Returns {kind of layer: its sliding window in tokens, None if it attends to all}. Raises UserError for any other kind."""
    window_by_kind = {"full_attention": None, "sliding_attention": getattr(config, "sliding_window", None)}
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if unknown := kinds - window_by_kind.keys():
        raise UserError(f"no mask is known for layers of {sorted(unknown)}: use training.share_prefixes=false")
    return {kind: window_by_kind[kind] for kind in kinds}


def _one_or_all(masks: dict):
    # transformers takes a single mask for a model with full layers only, and a mask a kind for any other.
    return masks["full_attention"] if masks.keys() == {"full_attention"} else masks


def _flex_mask(end: torch.Tensor, depth: torch.Tensor, window: int | None):
    """Returns the mask for FlexAttention, which skips blocks that are masked as a whole."""
    from torch.nn.attention.flex_attention import create_block_mask

    def attends(batch, head, query, key):
        ancestor = (key <= query) & (query < end[key])
        return ancestor if window is None else ancestor & (depth[query] - depth[key] < window)

    return create_block_mask(attends, None, None, len(end), len(end), device=end.device)


def _blocks(attends: torch.Tensor) -> list[Block]:
    """Returns the blocks of a (query, key) bool mask."""
    blocks = []
    for first in range(0, len(attends), _BLOCK):
        rows = attends[first : first + _BLOCK]
        keys = rows.any(0).nonzero().squeeze(1)
        blocks.append(Block(first, first + len(rows), keys, rows[:, keys][None, None]))
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
            block.attends,
            scaling,
        )
        for block in tree_blocks
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _packed(query, key, value, mask, scaling):
    """Returns the attention of queries (batch, heads, queries, width).

    The query heads of one key head are packed into one head with more queries, so that keys and values are not repeated.
    """
    batch, heads, queries, width = query.shape
    group = heads // key.shape[1]
    if group > 1:
        query = query.reshape(batch, key.shape[1], group * queries, width)
        mask = mask.repeat(1, 1, group, 1)
    output = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(batch, heads, queries, width)


AttentionInterface.register(_PACKED, _packed_sdpa)
# The mask that a model builds itself for this attention, in calls without a mask or with one of padding.
AttentionMaskInterface.register(_PACKED, sdpa_mask)
