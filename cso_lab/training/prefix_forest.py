"""A batch of rows as a forest of prefix trees, so that a prefix several rows have in common is computed once.

The pairs of a dialogue repeat its history, and a chosen response is part of the history of later pairs. `build_prefix_forest` puts
the rows of a padded batch into prefix trees whose tokens are in pre-order: token i is an ancestor of token j exactly if i <= j < end[i].
This comparison is the attention mask, and a token's depth is its position id. `share_prefixes` makes a model run on these trees and
return, row by row, what TRL's trainers need. Log-probabilities and gradients equal those of the padded batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial, wraps
from types import MethodType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from cso_lab.training.tree_attention import tree_inputs, use_tree_attention

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

IGNORED = -100  # the label of a token whose log-probability is not needed


@dataclass(frozen=True)
class Tree:
    """The distinct tokens of some rows, in pre-order. All tensors are 1-D; the first three have length `len(tree)`."""

    tokens: torch.Tensor
    depth: torch.Tensor  # number of tokens before this one in its rows
    end: torch.Tensor  # one past the index of the last descendant
    scored: torch.Tensor  # indices of the tokens whose log-probability is needed
    parent: torch.Tensor  # for each scored token, the index of the token before it

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Forest:
    """The prefix trees of a batch.

    `score_index` (batch, length - 1) maps position t of a row to the index of its token t + 1 in the concatenated scored tokens of all
    trees, or to the number of all scored tokens if that token is not scored.
    """

    trees: list[Tree]
    score_index: torch.Tensor

    def __len__(self) -> int:
        """Returns the number of tokens in all trees."""
        return sum(map(len, self.trees))


@dataclass
class TokenCount:
    """Counts the tokens that a model computes, and those that TRL would compute for the same rows, padded, `rows_per_batch` at a time.

    A batch holds `texts` texts of each row: first that of every row, then the next one of every row. Recomputation in the backward pass
    is not counted.
    """

    texts: int
    rows_per_batch: int
    computed: int = 0
    as_rows: int = 0

    def add(self, attention_mask: torch.Tensor, computed: int) -> None:
        """Counts a batch with this mask, (rows x texts, length), of which `computed` tokens are computed."""
        longest = attention_mask.sum(1).view(self.texts, -1).amax(0)  # of each row
        self.as_rows += sum(int(rows.amax()) * len(rows) * self.texts for rows in longest.split(self.rows_per_batch))
        self.computed += computed

    def summary(self, accelerator: "Accelerator") -> dict:
        """Returns {tokens_computed, tokens_as_rows, token_ratio}, summed over all processes."""
        both = torch.tensor([self.computed, self.as_rows], device=accelerator.device)
        computed, as_rows = accelerator.reduce(both, "sum").tolist()
        return {"tokens_computed": computed, "tokens_as_rows": as_rows, "token_ratio": round(as_rows / max(computed, 1), 3)}


def build_prefix_forest(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, tokens_per_tree: int
) -> Forest:
    """Returns the forest of a padded batch.

    All three tensors are (batch, length); `labels` repeat the tokens to be scored and are `IGNORED` elsewhere. Padding on either side is
    left out. A row's first token has no token before it and is never scored. A tree has at most `tokens_per_tree` tokens, unless a
    single row has more.
    """
    device = input_ids.device
    real = attention_mask.bool().cpu().numpy()
    ids, scored = input_ids.cpu().numpy(), (labels != IGNORED).cpu().numpy() & real
    rows = [ids[row][real[row]] for row in range(len(ids))]
    score_index = np.full((len(rows), ids.shape[1]), -1)
    trees, scored_before = [], 0
    for members, tree, paths in _tries(rows, [scored[row][real[row]] for row in range(len(rows))], tokens_per_tree):
        index = np.full(len(tree["tokens"]), -1)
        index[tree["scored"]] = np.arange(len(tree["scored"])) + scored_before
        for row, path in zip(members, paths, strict=True):
            score_index[row, np.flatnonzero(real[row])] = np.where(scored[row][real[row]], index[path], -1)
            score_index[row, np.flatnonzero(real[row])[:1]] = -1
        scored_before += len(tree["scored"])
        if len(tree["scored"]):
            trees.append(_to_tree(tree, device))
    score_index[score_index == -1] = scored_before
    return Forest(trees, torch.from_numpy(score_index[:, 1:]).to(device))


def build_prefix_trees(
    rows: Sequence[Sequence[int]], tokens_per_tree: int, device: torch.device
) -> Iterator[tuple[list[int], Tree, list[np.ndarray]]]:
    """Yields prefix trees of rows of token ids, without scored tokens.

    For each tree: the indices of its rows, the tree, and for each of these rows the indices of its tokens in the tree. A tree has at most
    `tokens_per_tree` tokens, unless a single row has more.
    """
    arrays = [np.asarray(row, dtype=np.int64) for row in rows]
    for members, tree, paths in _tries(arrays, [np.zeros(len(row), dtype=bool) for row in rows], tokens_per_tree):
        yield members, _to_tree(tree, device), paths


def share_prefixes(
    model: "PreTrainedModel",
    tokens_per_tree: int,
    max_activation_tokens: int,
    mask: str = "auto",
    count: TokenCount | None = None,
) -> None:
    """Makes a causal language model with TRL's fused output layer compute its batches as prefix forests.

    `model(input_ids, attention_mask, labels=..., fused_lm_head=True)` returns the same TRL output as before, (batch, length - 1)
    per field, zero for tokens that are not scored. Forests of more than `max_activation_tokens` tokens are recomputed tree by tree in the
    backward pass, which needs the memory of one tree only. `mask` is the form of a tree's mask (see `training.tree_mask`);
    computed tokens are added to `count`.
    """
    fused = model.forward
    config = model.config.get_text_config()
    use_tree_attention(config, mask, model.device.type)

    @wraps(type(model).forward)
    def forward(self, input_ids=None, attention_mask=None, labels=None, fused_lm_head=False, **kwargs):
        if not fused_lm_head or labels is None:
            scored = {} if labels is None else {"labels": labels}
            return fused(input_ids=input_ids, attention_mask=attention_mask, fused_lm_head=fused_lm_head, **scored, **kwargs)
        kwargs.pop("num_items_in_batch", None)
        use_tree_attention(config, mask, input_ids.device.type)  # the model may have been moved since
        forest = build_prefix_forest(input_ids, attention_mask, labels, tokens_per_tree)
        if count is not None:
            count.add(attention_mask, len(forest) or input_ids.numel())
        if not forest.trees:  # no scored token: returns zeros that depend on all weights, since all processes need gradients
            return fused(input_ids=input_ids, attention_mask=attention_mask, labels=labels, fused_lm_head=True, **kwargs)
        scores = partial(_scores, self, fused, config, mask, kwargs)
        if torch.is_grad_enabled() and len(forest) > max_activation_tokens and len(forest.trees) > 1:
            outputs = [checkpoint(scores, tree, use_reentrant=False) for tree in forest.trees]
        else:
            outputs = [scores(tree) for tree in forest.trees]
        return _by_row(outputs, forest.score_index)

    model.forward = MethodType(forward, model)


def _scores(model, fused, config, mask: str, kwargs: dict, tree: Tree):
    """Returns TRL's output for the scored tokens of one tree: every field (1, scored)."""

    def keep_parents(module, args, output):
        output.last_hidden_state = output.last_hidden_state[:, tree.parent]
        return output

    # The output layer then computes one position for each scored token instead of one for each token of the tree.
    hook = model.base_model.register_forward_hook(keep_parents)
    try:
        return fused(
            shift_labels=tree.tokens[tree.scored][None],
            fused_lm_head=True,
            **tree_inputs(tree.tokens, tree.depth, tree.end, config, model.dtype, mask),
            **kwargs,
        )
    finally:
        hook.remove()


def _by_row(outputs: Sequence, score_index: torch.Tensor):
    """Returns the trees' outputs as one for the batch: each field (batch, length - 1), the loss the mean over scored tokens."""

    def rows(name: str) -> torch.Tensor | None:
        values = [getattr(output, name) for output in outputs]
        if any(value is None for value in values):
            return None
        flat = torch.cat([value.squeeze(0) for value in values])
        return torch.cat([flat, flat.new_zeros(1)])[score_index]

    output_class = type(outputs[0])
    scored = score_index < sum(output.log_probs.numel() for output in outputs)
    names = [field.name for field in fields(output_class) if field.name not in ("loss", "aux_loss", "label_mask")]
    values = {name: rows(name) for name in names}
    return output_class(loss=-values["log_probs"].sum() / scored.sum().clamp(min=1), label_mask=scored, **values)


def _tries(
    rows: Sequence[np.ndarray], scored: Sequence[np.ndarray], tokens_per_tree: int
) -> Iterator[tuple[list[int], dict, list[np.ndarray]]]:
    """Yields rows as tries of at most `tokens_per_tree` tokens: (indices of its rows, fields of a Tree, indices of each row's tokens)."""
    # Big-endian bytes sort as the tokens do, and a row before all rows that continue it, which is the order of the trie's leaves.
    order = sorted(range(len(rows)), key=lambda row: rows[row].astype(">i8").tobytes())
    overlap = [0] + [common_prefix(rows[a], rows[b]) for a, b in zip(order, order[1:], strict=False)]
    for first, last in _cut([len(rows[row]) for row in order], overlap, tokens_per_tree):
        members = order[first:last]
        shared = [0, *overlap[first + 1 : last]]
        yield members, *_trie([rows[row] for row in members], shared, [scored[row] for row in members])


def _to_tree(tree: dict, device: torch.device) -> Tree:
    return Tree(**{name: torch.from_numpy(values).to(device) for name, values in tree.items()})


def _trie(rows: Sequence[np.ndarray], overlap: Sequence[int], scored: Sequence[np.ndarray]) -> tuple[dict, list[np.ndarray]]:
    """Returns the fields of a Tree for sorted rows, and the indices of each row's tokens in it.

    `overlap[k]` is the number of tokens that row k has in common with row k - 1.
    """
    total = sum(map(len, rows)) - sum(overlap)
    tokens, depth, parent, end = (np.zeros(total, dtype=np.int64) for _ in range(4))
    in_scored = np.zeros(total, dtype=bool)
    paths, path, size = [], np.zeros(0, dtype=np.int64), 0
    for row, shared, row_scored in zip(rows, overlap, scored, strict=True):
        end[path[shared:]] = size  # the subtrees of the previous row that end here
        new = np.arange(size, size + len(row) - shared)
        path = np.concatenate([path[:shared], new])
        tokens[new], depth[new] = row[shared:], np.arange(shared, len(row))
        parent[new[1:]] = new[:-1]
        parent[new[:1]] = path[shared - 1] if shared else 0
        in_scored[path[1:][row_scored[1:]]] = True
        paths.append(path)
        size += len(new)
    end[path] = size
    indices = np.flatnonzero(in_scored)
    return {"tokens": tokens, "depth": depth, "end": end, "scored": indices, "parent": parent[indices]}, paths


def _cut(lengths: Sequence[int], overlap: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Returns the ranges (first, last) of sorted rows, each of at most `limit` distinct tokens, that repeat the fewest tokens.

    A cut before row k repeats the `overlap[k]` tokens it has in common with the row before. A single row may exceed the limit.
    """
    best = [(0, 0)]  # for each number of rows: (tokens repeated, first row of its last range)
    for last in range(1, len(lengths) + 1):
        size, options = 0, []
        for first in range(last - 1, -1, -1):
            # The first row of a range counts with all its tokens, a later one without those it has in common with the row before.
            size += lengths[first] - (overlap[first + 1] if first + 1 < last else 0)
            if size > limit and first < last - 1:
                break
            options.append((best[first][0] + (overlap[first] if first else 0), first))
        best.append(min(options))
    ranges, last = [], len(lengths)
    while last:
        first = best[last][1]
        ranges.append((first, last))
        last = first
    return ranges[::-1]


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Returns the length of the common prefix of two 1-D arrays."""
    shorter = min(len(a), len(b))
    different = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(different[0]) if len(different) else shorter
