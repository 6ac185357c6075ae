"""FlexAttention over a prefix tree: compiled once on GPUs, where it skips blocks of keys that are masked as a whole; uncompiled on CPUs."""

from collections.abc import Callable
from functools import cache

import torch
import torch._dynamo.utils
import torch.fx.experimental._config
from torch._higher_order_ops.flex_attention import flex_attention as uncompiled
from torch.nn.attention.flex_attention import BlockMask, flex_attention

# Tokens of a block of queries or keys. A tree is padded to a multiple of it.
BLOCK = 128
# A size of one would be compiled as a constant, and again for every other size, so a tree has at least two blocks.
_LEAST_BLOCKS = 2
# Compiled variants that are kept: one for each model's heads, number type and kind of layer, with gradients and without, and a sweep
# trains several models. At torch's own limit of 8 it would stop.
_MOST_VARIANTS = 256


def padded_length(tokens: int) -> int:
    """Returns the length that a tree of so many tokens is padded to."""
    return BLOCK * max(_LEAST_BLOCKS, -(-tokens // BLOCK))


def pad_tree(tokens: torch.Tensor, depth: torch.Tensor, end: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns a tree's fields, (tokens,) each, with tokens appended that attend to themselves only and that nothing attends to."""
    first, last = len(tokens), padded_length(len(tokens))
    zeros = tokens.new_zeros(last - first)
    own_end = torch.arange(first + 1, last + 1, device=end.device, dtype=end.dtype)
    return torch.cat([tokens, zeros]), torch.cat([depth, zeros]), torch.cat([end, own_end])


def tree_block_mask(end: torch.Tensor, depth: torch.Tensor, window: int | None) -> BlockMask:
    """Returns the mask of a tree whose length is a multiple of `BLOCK`; `window` as in `tree_attention.ancestors`.

    It follows from each block's extreme values, without a mask of tokens x tokens and without waiting for the device.
    """
    tokens, blocks = len(end), len(end) // BLOCK
    first = torch.arange(0, tokens, BLOCK, device=end.device)[:, None]  # of the queries of a block
    end_of_keys = end.view(blocks, BLOCK)
    before = first.T < first
    # The first query of a later block is a descendant of a key that ends after it; all its queries are if all keys end after the last.
    some = (first.T == first) | (before & (end_of_keys.amax(1) > first))
    every = before & (end_of_keys.amin(1) >= first + BLOCK)
    if window is None:

        def attends(batch, head, query, key):
            return (key <= query) & (query < end[key])

    else:
        depths = depth.view(blocks, BLOCK)
        deepest, flattest = depths.amax(1), depths.amin(1)
        # May keep a block without any pair, whose scores are then all masked.
        some &= flattest[:, None] - deepest < window
        every &= deepest[:, None] - flattest < window
        # A tensor, because a number that the function closes over would be compiled as a symbol.
        shallowest = depth - window + 1

        def attends(batch, head, query, key):
            return (key <= query) & (query < end[key]) & (depth[key] >= shallowest[query])

    return BlockMask.from_kv_blocks(
        *_listed(some & ~every), *_listed(every), BLOCK_SIZE=BLOCK, mask_mod=attends, seq_lengths=(tokens, tokens)
    )


def flex(query, key, value, mask: BlockMask, scale: float, softcap: float | None) -> torch.Tensor:
    """Returns the attention of queries, (batch, heads, tokens, width); scores are capped to +-`softcap` by a tanh if it is given."""
    score_mod = None if softcap is None else _capped(softcap)
    if query.device.type == "cpu":
        return _flex_uncompiled(query, key, value, mask, scale, score_mod)
    return flex_compiled()(query, key, value, score_mod=score_mod, block_mask=mask, scale=scale, enable_gqa=True)


@cache
def flex_compiled(backend: str | Callable = "inductor") -> Callable:
    """Returns torch's `flex_attention`, compiled with dynamic shapes for the device of its arguments.

    Sets two of the compiler's options for the whole process.
    """
    # Otherwise a scale or a cap would be compiled as a symbol, which the kernel's template does not take, and a number of blocks that is by
    # chance the number of heads would be taken for the same size. Setting them around each call costs a quarter of a millisecond a layer.
    torch._dynamo.config.specialize_float = True
    torch.fx.experimental._config.use_duck_shape = False
    return torch.compile(flex_attention, dynamic=True, fullgraph=True, backend=backend, recompile_limit=_MOST_VARIANTS)


def compilations() -> int:
    """Returns how many graphs torch has compiled in this process so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@cache
def _capped(softcap: float) -> Callable:
    def score_mod(score, batch, head, query, key):
        return softcap * torch.tanh(score / softcap)

    return score_mod


def _flex_uncompiled(query, key, value, mask: BlockMask, scale: float, score_mod: Callable | None) -> torch.Tensor:
    """Returns the same by torch's operator itself: `flex_attention` refuses gradients on CPUs, where only its compiled form has none."""
    # The operator traces `score_mod` whenever gradients are needed. A checkpoint around the layer would take the tensors of the trace for
    # the layer's own.
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        output, *_ = uncompiled(query, key, value, score_mod or _unchanged, mask.as_tuple(), scale, {})
    return output


def _unchanged(score, batch, head, query, key):
    return score


def _listed(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns, for a (blocks of queries, blocks of keys) bool tensor, the number of blocks of each row and their indices."""
    number = blocks.sum(-1, dtype=torch.int32)
    indices = blocks.int().argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    return number[None, None], indices[None, None]
