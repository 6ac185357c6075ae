"""A batch of rows as one forest of prefix trees, so that no prefix two rows have in common is computed twice.

The pairs of a dialogue repeat its history, and a chosen response comes back in the history of later pairs. `build_prefix_forest` puts
the rows of a padded batch into prefix trees whose tokens stand in pre-order: token i is an ancestor of token j exactly when
i <= j < end[i].
That one comparison is the attention mask, and a token's depth is its position. `share_prefixes` has a model run on these trees
and hand back, row by row, what TRL's trainers read. Log-probabilities and gradients are those of the batch itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial, wraps
from types import MethodType

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from cso_lab.training.tree_attention import tree_mask, use_tree_attention

IGNORED = -100  # a label nobody asks the log-probability of


@dataclass(frozen=True)
class Tree:
    """The distinct tokens of some rows, in pre-order. All are 1-D; the first three of length `len(tree)`."""

    tokens: torch.Tensor
    depth: torch.Tensor  # number of tokens before this one in its rows
    end: torch.Tensor  # one past the last descendant
    scored: torch.Tensor  # tokens whose log-probability is asked for
    parent: torch.Tensor  # for each of these, the token before it

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Forest:
    """The trees of a batch. `place[row, t]` is where, among all scored tokens one tree after the other, the token at t + 1 stands;
    it is the number of all scored tokens where nothing is asked: (batch, length - 1)."""

    trees: list[Tree]
    place: torch.Tensor

    def __len__(self) -> int:
        """Tokens over all trees."""
        return sum(map(len, self.trees))


@dataclass
class TokenCount:
    """Tokens that went through a model once, and those of the same rows as TRL would compute them: padded, `at_once` rows at a time.

    A batch holds `texts` texts of each row: first that of every row, then the next one of every row. What is run again in the backward
    pass counts once.
    """

    texts: int
    at_once: int
    computed: int = 0
    as_rows: int = 0

    def add(self, attention_mask: torch.Tensor, computed: int) -> None:
        """Count a batch, (rows x texts, length), of which so many tokens are computed."""
        longest = attention_mask.sum(1).view(self.texts, -1).amax(0)  # of each row
        self.as_rows += sum(int(rows.amax()) * len(rows) * self.texts for rows in longest.split(self.at_once))
        self.computed += computed

    def summary(self, accelerator) -> dict:
        """Both numbers and their ratio, over all processes."""
        both = torch.tensor([self.computed, self.as_rows], device=accelerator.device)
        computed, as_rows = accelerator.reduce(both, "sum").tolist()
        return {"tokens_computed": computed, "tokens_as_rows": as_rows, "token_ratio": round(as_rows / max(computed, 1), 3)}


def build_prefix_forest(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, tokens_per_tree: int
) -> Forest:
    """The forest of a padded batch (batch, length); `labels` repeat the tokens to be scored and are `IGNORED` elsewhere.

    Padding on either side is left out. A row's first token has nothing before it and is never scored. Trees have at most
    `tokens_per_tree` tokens each, unless one row alone has more.
    """
    device = input_ids.device
    real = attention_mask.bool().cpu().numpy()
    ids, asked = input_ids.cpu().numpy(), (labels != IGNORED).cpu().numpy() & real
    rows = [ids[row][real[row]] for row in range(len(ids))]
    place = np.full((len(rows), ids.shape[1]), -1)
    trees, scored_before = [], 0
    for members, tree, paths in _tries(rows, [asked[row][real[row]] for row in range(len(rows))], tokens_per_tree):
        index = np.full(len(tree["tokens"]), -1)
        index[tree["scored"]] = np.arange(len(tree["scored"])) + scored_before
        for row, path in zip(members, paths, strict=True):
            place[row, np.flatnonzero(real[row])] = np.where(asked[row][real[row]], index[path], -1)
            place[row, np.flatnonzero(real[row])[:1]] = -1
        scored_before += len(tree["scored"])
        if len(tree["scored"]):
            trees.append(_on(tree, device))
    place[place == -1] = scored_before
    return Forest(trees, torch.from_numpy(place[:, 1:]).to(device))


def pack(rows: Sequence[Sequence[int]], tokens_per_tree: int, device) -> Iterator[tuple[list[int], Tree, list[np.ndarray]]]:
    """Prefix trees of rows of tokens, none scored: for each, the rows that are in it, the tree, and where in it each row's tokens are."""
    arrays = [np.asarray(row, dtype=np.int64) for row in rows]
    for members, tree, paths in _tries(arrays, [np.zeros(len(row), dtype=bool) for row in rows], tokens_per_tree):
        yield members, _on(tree, device), paths


def share_prefixes(
    model, tokens_per_tree: int, max_activation_tokens: int, mask: str = "auto", count: TokenCount | None = None
) -> None:
    """Have a causal language model that carries TRL's fused output layer fold its batches.

    `model(input_ids, attention_mask, labels=..., fused_lm_head=True)` returns the same TRL output as before, (batch, length - 1)
    per field, zero where nothing is asked. Forests of more than `max_activation_tokens` tokens are recomputed tree by tree in the backward
    pass, which takes no more memory than one tree of them. `mask` is the form of a tree's mask (see `training.tree_mask`);
    what is computed is added to `count`.
    """
    fused = model.forward
    config = model.config.get_text_config()
    use_tree_attention(config, mask)

    @wraps(type(model).forward)
    def forward(self, input_ids=None, attention_mask=None, labels=None, fused_lm_head=False, **kwargs):
        if not fused_lm_head or labels is None:
            scored = {} if labels is None else {"labels": labels}
            return fused(input_ids=input_ids, attention_mask=attention_mask, fused_lm_head=fused_lm_head, **scored, **kwargs)
        kwargs.pop("num_items_in_batch", None)
        forest = build_prefix_forest(input_ids, attention_mask, labels, tokens_per_tree)
        if count is not None:
            count.add(attention_mask, len(forest) or input_ids.numel())
        if not forest.trees:  # nothing is asked: zeros that still depend on all weights, as the processes' gradients have to
            return fused(input_ids=input_ids, attention_mask=attention_mask, labels=labels, fused_lm_head=True, **kwargs)
        scores = partial(_scores, self, fused, config, mask, kwargs)
        if torch.is_grad_enabled() and len(forest) > max_activation_tokens and len(forest.trees) > 1:
            outputs = [checkpoint(scores, tree, use_reentrant=False) for tree in forest.trees]
        else:
            outputs = [scores(tree) for tree in forest.trees]
        return _by_row(outputs, forest.place)

    model.forward = MethodType(forward, model)


def _scores(model, fused, config, mask: str, kwargs: dict, tree: Tree):
    """TRL's output for the scored tokens of one tree: every field (1, scored)."""

    def before_scored(module, args, output):
        output.last_hidden_state = output.last_hidden_state[:, tree.parent]
        return output

    # The output layer computes one position for each scored token, in place of one for each token of the tree.
    hook = model.base_model.register_forward_hook(before_scored)
    try:
        return fused(
            input_ids=tree.tokens[None],
            position_ids=tree.depth[None],
            shift_labels=tree.tokens[tree.scored][None],
            fused_lm_head=True,
            **tree_mask(tree.end, tree.depth, config, model.dtype, mask),
            **kwargs,
        )
    finally:
        hook.remove()


def _by_row(outputs: Sequence, place: torch.Tensor):
    """The trees' outputs as one for the batch: each field (batch, length - 1), the loss the mean over what was asked."""

    def rows(name: str):
        found = [getattr(output, name) for output in outputs]
        if any(values is None for values in found):
            return None
        found = torch.cat([values.squeeze(0) for values in found])
        return torch.cat([found, found.new_zeros(1)])[place]

    kind = type(outputs[0])
    asked = place < sum(output.log_probs.numel() for output in outputs)
    values = {field.name: rows(field.name) for field in fields(kind) if field.name not in ("loss", "aux_loss", "label_mask")}
    return kind(loss=-values["log_probs"].sum() / asked.sum().clamp(min=1), label_mask=asked, **values)


def _tries(
    rows: Sequence[np.ndarray], asked: Sequence[np.ndarray], tokens_per_tree: int
) -> Iterator[tuple[list[int], dict, list[np.ndarray]]]:
    """Rows as tries of at most `tokens_per_tree` tokens: (which rows, the fields of a Tree, each row's tokens in it)."""
    # Big-endian bytes sort as the tokens do, and a row before all that continue it: the order of the trie's leaves.
    order = sorted(range(len(rows)), key=lambda row: rows[row].astype(">i8").tobytes())
    overlap = [0] + [common_prefix(rows[a], rows[b]) for a, b in zip(order, order[1:], strict=False)]
    for first, last in _cut([len(rows[row]) for row in order], overlap, tokens_per_tree):
        members = order[first:last]
        shared = [0, *overlap[first + 1 : last]]
        yield members, *_trie([rows[row] for row in members], shared, [asked[row] for row in members])


def _on(tree: dict, device) -> Tree:
    return Tree(**{name: torch.from_numpy(values).to(device) for name, values in tree.items()})


def _trie(rows: Sequence[np.ndarray], overlap: Sequence[int], asked: Sequence[np.ndarray]) -> tuple[dict, list[np.ndarray]]:
    """The fields of a Tree for sorted rows, `overlap[k]` of whose tokens row k has in common with the row before; and each row's tokens."""
    total = sum(map(len, rows)) - sum(overlap)
    tokens, depth, parent, end = (np.zeros(total, dtype=np.int64) for _ in range(4))
    scored = np.zeros(total, dtype=bool)
    paths, path, size = [], np.zeros(0, dtype=np.int64), 0
    for row, shared, wanted in zip(rows, overlap, asked, strict=True):
        end[path[shared:]] = size  # the subtrees of the row before that this one leaves
        new = np.arange(size, size + len(row) - shared)
        path = np.concatenate([path[:shared], new])
        tokens[new], depth[new] = row[shared:], np.arange(shared, len(row))
        parent[new[1:]] = new[:-1]
        parent[new[:1]] = path[shared - 1] if shared else 0
        scored[path[1:][wanted[1:]]] = True
        paths.append(path)
        size += len(new)
    end[path] = size
    chosen = np.flatnonzero(scored)
    return {"tokens": tokens, "depth": depth, "end": end, "scored": chosen, "parent": parent[chosen]}, paths


def _cut(lengths: Sequence[int], overlap: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Ranges of sorted rows, each of at most `limit` distinct tokens, that repeat as few tokens as such ranges can.

    A cut before row k repeats the `overlap[k]` tokens it has in common with the row before.
    """
    best = [(0, 0)]  # for each number of rows: (tokens repeated, where its last range begins)
    for last in range(1, len(lengths) + 1):
        size, options = 0, []
        for first in range(last - 1, -1, -1):
            # Row `first` opens the range and counts whole; it did not when a row before it did.
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
    """How many elements two sequences have in common at their beginning."""
    shorter = min(len(a), len(b))
    different = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(different[0]) if len(different) else shorter
