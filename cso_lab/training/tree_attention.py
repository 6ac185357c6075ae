"""Attention over a prefix tree in pre-order: token i is seen by token j exactly when i <= j < end[i]."""

from dataclasses import dataclass

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from cso_lab.errors import UserError

# Queries that are answered together, and what the model's configuration calls it.
_BLOCK = 128
_IN_BLOCKS = "tree_in_blocks"


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


def attention_arguments(end: torch.Tensor, depth: torch.Tensor, config, dtype: torch.dtype) -> dict:
    """What to call a model's backbone with so that it attends as the tree says, under `implementation(config, device)`.

    A mask of the form its attention takes (for models whose layers differ, one a kind of layer); on CPUs, which compute what a mask
    hides as well, blocks that leave most of it out.
    """
    if implementation(config, end.device) == _IN_BLOCKS:
        # Not looked at, but a mask that is there already is one the model does not make.
        return {"attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool), "tree_blocks": _blocks(ancestors(end, depth))}
    kinds = _kinds(config)
    windows = {"full_attention": None, "sliding_attention": getattr(config, "sliding_window", None)}
    if unknown := kinds - windows.keys():
        raise UserError(f"training.share_prefixes knows no mask for {sorted(unknown)}: use training.share_prefixes=false")
    masks = {kind: _mask(end, depth, windows[kind], config._attn_implementation, dtype) for kind in kinds}
    return {"attention_mask": masks["full_attention"] if kinds == {"full_attention"} else masks}


def implementation(config, device: torch.device) -> str:
    """The attention a model of this configuration runs a tree with."""
    if config._attn_implementation == "sdpa" and device.type == "cpu" and _kinds(config) == {"full_attention"}:
        return _IN_BLOCKS
    return config._attn_implementation


def _kinds(config) -> set[str]:
    return set(getattr(config, "layer_types", None) or ["full_attention"])


def _mask(end: torch.Tensor, depth: torch.Tensor, window: int | None, kind: str, dtype: torch.dtype):
    if kind == "flex_attention":
        return _block_mask(end, depth, window)
    if kind not in ("sdpa", "eager"):
        raise UserError(
            f"training.share_prefixes needs an attention that takes a mask, not {kind!r}: use"
            " backbone.attn_implementation=sdpa, eager or flex_attention, or training.share_prefixes=false"
        )
    seen = ancestors(end, depth, window)[None, None]
    if kind == "sdpa":
        return seen
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


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


def _attend_in_blocks(module, query, key, value, attention_mask, tree_blocks: list[Block], **kwargs):
    """Queries block by block, each over the keys it sees. Shapes as in transformers: (batch, heads, tokens, width) in,
    (batch, tokens, heads, width) out."""
    answers = [
        sdpa_attention_forward(
            module,
            query[:, :, block.first : block.last],
            key.index_select(2, block.keys),
            value.index_select(2, block.keys),
            block.seen,
            **kwargs,
        )[0]
        for block in tree_blocks
    ]
    return torch.cat(answers, dim=1), None


AttentionInterface.register(_IN_BLOCKS, _attend_in_blocks)
