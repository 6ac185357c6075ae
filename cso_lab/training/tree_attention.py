"""Attention where tokens of several rows stand side by side, and each is told which ones it sees.

In a prefix tree in pre-order, token i is seen by token j exactly when i <= j < end[i].
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from cso_lab.core.errors import UserError

# Queries of a tree that are answered together on CPUs, which compute what a mask hides as well.
_BLOCK = 128
# What a model's configuration calls the attention below while it runs.
_PACKED = "packed_sdpa"
_FLEX = "flex_attention"


@dataclass(frozen=True)
class Block:
    """Neighbouring queries, and the keys that any of them sees."""

    first: int
    last: int
    keys: torch.Tensor  # (keys,)
    seen: torch.Tensor  # (1, 1, last - first, keys), bool


def ancestors(end: torch.Tensor, depth: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """(query, key) bool: whether a token sees another one, itself included; within `window` positions if given."""
    token = torch.arange(len(end), device=end.device)
    seen = (token[None, :] <= token[:, None]) & (token[:, None] < end[None, :])
    return seen if window is None else seen & (depth[:, None] - depth[None, :] < window)


def use_tree_attention(config, form: str = "auto") -> None:
    """Have a model of this configuration take the masks made here, of this form, from now on; its other calls stay what they are.

    Nothing is switched back after a forward pass: with activation checkpointing, the backward pass runs the layers again.
    """
    own = config._attn_implementation
    if form in ("blocks", "dense") and own == _FLEX:
        raise UserError(f"training.tree_mask={form} goes with backbone.attn_implementation=sdpa or eager, not {own}")
    if form == "flex":
        config._attn_implementation = _FLEX
    elif own == "sdpa":
        config._attn_implementation = _PACKED


@contextmanager
def running(config) -> Iterator[None]:
    """Within it, a model of this configuration takes the masks made here. For passes without gradients: see `use_tree_attention`."""
    own = config._attn_implementation
    use_tree_attention(config)
    try:
        yield
    finally:
        config._attn_implementation = own


def tree_mask(end: torch.Tensor, depth: torch.Tensor, config, dtype: torch.dtype, form: str = "auto") -> dict:
    """The arguments with which a backbone that uses tree attention attends as a tree says; `form` as in `training.tree_mask`."""
    kinds = _windows(config)
    if config._attn_implementation == _FLEX:
        return {"attention_mask": _one_or_all({kind: _block_mask(end, depth, window) for kind, window in kinds.items()})}
    takes_blocks = config._attn_implementation == _PACKED and set(kinds.values()) == {None}
    if form == "blocks" and not takes_blocks:
        raise UserError(
            "training.tree_mask=blocks needs SDPA and layers that all see everything before them: use dense or flex"
        )
    if takes_blocks and (form == "blocks" or (form == "auto" and end.device.type == "cpu")):
        # Not looked at, but a mask that is there already is one the model does not make.
        return {"attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool), "tree_blocks": _blocks(ancestors(end, depth))}
    return {"attention_mask": dense_mask(lambda window: ancestors(end, depth, window)[None, None], config, dtype)}


def dense_mask(seen: Callable[[int | None], torch.Tensor], config, dtype: torch.dtype):
    """`seen(window)`, (batch, 1, queries, keys) bool, as the model's attention takes it; for models whose layers differ, one a kind."""
    implementation = config._attn_implementation
    if implementation not in (_PACKED, "eager"):
        raise UserError(
            f"prefixes are shared by an attention that takes a mask, not {implementation!r}: use backbone.attn_implementation=sdpa or"
            " eager, or training.share_prefixes=false"
        )

    def prepared(window: int | None) -> torch.Tensor:
        # Added to the scores: SDPA would make the same of a bool mask, once in every layer.
        mask = seen(window)
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)

    return _one_or_all({kind: prepared(window) for kind, window in _windows(config).items()})


def _windows(config) -> dict[str, int | None]:
    """The kinds of layer a model has, and how far back each looks."""
    known = {"full_attention": None, "sliding_attention": getattr(config, "sliding_window", None)}
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if unknown := kinds - known.keys():
        raise UserError(f"no mask is known for layers of {sorted(unknown)}: use training.share_prefixes=false")
    return {kind: known[kind] for kind in kinds}


def _one_or_all(masks: dict):
    return masks["full_attention"] if masks.keys() == {"full_attention"} else masks


def _block_mask(end: torch.Tensor, depth: torch.Tensor, window: int | None):
    """The mask for FlexAttention, which skips the blocks no token of which is seen."""
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(batch, head, query, key):
        inside = (key <= query) & (query < end[key])
        return inside if window is None else inside & (depth[query] - depth[key] < window)

    return create_block_mask(seen, None, None, len(end), len(end), device=end.device)


def _blocks(seen: torch.Tensor) -> list[Block]:
    blocks = []
    for first in range(0, len(seen), _BLOCK):
        rows = seen[first : first + _BLOCK]
        keys = rows.any(0).nonzero().squeeze(1)
        blocks.append(Block(first, first + len(rows), keys, rows[:, keys][None, None]))
    return blocks


def _packed_sdpa(module, query, key, value, attention_mask, scaling=None, tree_blocks: list[Block] | None = None, **kwargs):
    """SDPA under a mask. Shapes as in transformers: (batch, heads, tokens, width) in, (batch, tokens, heads, width) out."""
    if attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **kwargs)
    if tree_blocks is None:
        return _packed(query, key, value, attention_mask, scaling).transpose(1, 2), None
    answers = [
        _packed(
            query[:, :, block.first : block.last],
            key.index_select(2, block.keys),
            value.index_select(2, block.keys),
            block.seen,
            scaling,
        )
        for block in tree_blocks
    ]
    return torch.cat(answers, dim=2).transpose(1, 2), None


def _packed(query, key, value, seen, scaling):
    """Attention of (batch, heads, queries, width). The heads that share keys ask as one head with more queries: no key is repeated."""
    batch, heads, queries, width = query.shape
    group = heads // key.shape[1]
    if group > 1:
        query = query.reshape(batch, key.shape[1], group * queries, width)
        seen = seen.repeat(1, 1, group, 1)
    answer = scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling)
    return answer.reshape(batch, heads, queries, width)


AttentionInterface.register(_PACKED, _packed_sdpa)
# The masks a model makes itself where it is given none, or one of rows and padding.
AttentionMaskInterface.register(_PACKED, sdpa_mask)
