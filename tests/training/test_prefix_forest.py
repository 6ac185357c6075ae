"""Prefix sharing against a slow, obvious forest, and against the same model and trainers without it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainings import config

from cso_lab.training.prefix_forest import IGNORED, build_prefix_forest, share_prefixes
from cso_lab.training.tree_attention import ancestors, tree_attention_enabled, tree_mask

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=6)


def padded(rows: list[list[int]], left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    pads = [[0] * (width - len(row)) for row in rows]
    ids = [pad + row if left else row + pad for row, pad in zip(rows, pads, strict=True)]
    real = [
        [0] * len(pad) + [1] * len(row) if left else [1] * len(row) + [0] * len(pad)
        for row, pad in zip(rows, pads, strict=True)
    ]
    return torch.tensor(ids), torch.tensor(real)


def forest_of(rows, left=False, limit=10_000):
    ids, real = padded(rows, left)
    return build_prefix_forest(ids, real, ids.masked_fill(real == 0, IGNORED), limit)


@settings(max_examples=300, deadline=None)
@given(ROWS, st.booleans(), st.integers(1, 20))
def test_every_row_finds_its_own_tokens_and_sees_exactly_its_own_prefix(rows, left, limit):
    forest = forest_of(rows, left, limit)
    scored = [(tree, int(node)) for tree in forest.trees for node in tree.scored]
    width = max(map(len, rows))
    for row, places in zip(rows, forest.score_index.tolist(), strict=True):
        first = width - len(row) if left else 0
        found = places[first : first + len(row) - 1]
        assert [p for i, p in enumerate(places) if not first <= i < first + len(row) - 1] == [len(scored)] * (width - len(row))
        for depth, place in enumerate(found, start=1):
            tree, node = scored[place]
            seen = np.flatnonzero(ancestors(tree.end, tree.depth)[node].numpy())
            assert tree.tokens[seen].tolist() == row[: depth + 1]
            assert tree.depth[seen].tolist() == list(range(depth + 1))


@settings(max_examples=300, deadline=None)
@given(ROWS)
def test_a_forest_without_limit_holds_every_distinct_prefix_once(rows):
    prefixes = {tuple(row[: i + 1]) for row in rows for i in range(len(row))}
    asked = {prefix for prefix in prefixes if len(prefix) > 1}
    forest = forest_of(rows)
    assert sum(len(tree.scored) for tree in forest.trees) == len(asked)
    assert len(forest) == (len(prefixes) if asked else 0)


@settings(max_examples=300, deadline=None)
@given(ROWS, st.integers(1, 20))
def test_trees_keep_to_the_limit_and_repeat_as_little_as_any_cut(rows, limit):
    forest = forest_of(rows, limit=limit)
    assert all(len(tree) <= max(limit, *map(len, rows)) for tree in forest.trees)

    def size(part):
        return len({tuple(row[: i + 1]) for row in part for i in range(len(row))})

    ordered = sorted(rows)
    best = [0]
    for last in range(1, len(ordered) + 1):
        ranges = [(first, size(ordered[first:last])) for first in range(last)]
        best.append(min(best[first] + total for first, total in ranges if total <= limit or first == last - 1))
    if all(len(row) > 1 for row in rows):  # a tree of one token has nothing to score and is left out
        assert len(forest) == best[-1]


def test_the_window_of_a_sliding_layer_counts_positions_not_tokens():
    forest = forest_of([[1, 2, 3, 4], [1, 5, 6]])
    tree = forest.trees[0]
    assert tree.tokens.tolist() == [1, 2, 3, 4, 5, 6]
    assert ancestors(tree.end, tree.depth, window=2).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [1, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]


SHAPES = {
    "shared": [[5, 6, 7, 8, 9], [5, 6, 7, 10, 11, 12], [5, 6, 13]],
    "nested": [[5, 6, 7], [5, 6, 7, 8, 9], [5, 6, 7, 8, 9, 10, 11]],
    "identical": [[5, 6, 7, 8]] * 3,
    "disjoint": [[5, 6, 7], [8, 9, 10, 11], [12, 13]],
    "single": [[5], [5, 6, 7], [9, 8]],
    # several blocks of queries
    "long": [[*range(5, 60)] * 4, [*([*range(5, 60)] * 2), *range(60, 80)]],
}


@pytest.mark.parametrize("backbone", ["tiny_llama", "tiny_qwen", "tiny_gemma"])
@pytest.mark.parametrize("limit", [10_000, 40])
def test_scores_and_gradients_are_those_of_the_batch(shared, backbone, limit):
    """In float64 but for TRL's output layer, which is float32, and for Gemma-2, whose attention would be NaN at padding."""
    from trl.trainer.utils import add_fused_lm_head

    from cso_lab.training.backbone import load_model

    cfg = config(shared, f"backbone={backbone}")
    models = [load_model(cfg) if backbone == "tiny_gemma" else load_model(cfg).double() for _ in range(2)]
    for model in models:
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    share_prefixes(models[1], limit, 50)
    for name, rows in SHAPES.items():
        for left in (False, True):
            ids, real = padded(rows, left)
            second_half = torch.arange(ids.shape[1]) >= max(1, ids.shape[1] // 2)
            labels = ids.masked_fill((real == 0) | ~second_half, IGNORED)
            if left:  # a row's first token has nothing before it
                labels = labels.masked_fill(real.cumsum(1) == 1, IGNORED)
            results = []
            for model in models:
                model.zero_grad()
                out = model(input_ids=ids, attention_mask=real, labels=labels, fused_lm_head=True)
                (out.log_probs * torch.linspace(1, 2, out.log_probs.shape[1])).sum().backward()
                gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
                results.append((out, torch.cat([gradient.flatten() for gradient in gradients])))
            (stock, stock_gradient), (folded_out, gradient) = results
            assert stock.log_probs.abs().sum() > 0, name
            for field in ("loss", "log_probs", "entropy", "mean_logits"):
                torch.testing.assert_close(
                    folded_out[field], stock[field], rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
                )
            assert torch.equal(folded_out.label_mask, stock.label_mask)
            assert torch.equal(folded_out.is_top1.bool(), stock.is_top1.bool())
            assert (gradient - stock_gradient).norm() <= 1e-5 * stock_gradient.norm()


@pytest.mark.parametrize("backbone", ["tiny_llama", "tiny_qwen", "tiny_gemma"])
def test_hidden_states_are_equal_in_float64(shared, backbone):
    from cso_lab.training.backbone import load_model

    model = load_model(config(shared, f"backbone={backbone}")).double()
    rows = SHAPES["long"] + SHAPES["shared"]
    forest = forest_of(rows)
    [tree] = forest.trees
    with torch.no_grad():
        alone = [model.model(input_ids=torch.tensor([row])).last_hidden_state[0] for row in rows]
        with tree_attention_enabled(model.config):
            mask = tree_mask(tree.end, tree.depth, model.config, model.dtype)
            states = model.model(input_ids=tree.tokens[None], position_ids=tree.depth[None], **mask).last_hidden_state[0]
    for row, places, expected in zip(rows, forest.score_index.tolist(), alone, strict=True):
        nodes = tree.scored[places[: len(row) - 1]]
        # Gemma-2's own attention takes its softmax in float32
        close = 1e-5 if backbone == "tiny_gemma" else 1e-9
        torch.testing.assert_close(states[nodes], expected[1:], rtol=close, atol=close)


@pytest.mark.parametrize("backbone", ["tiny_llama", "tiny_gemma"])
def test_a_batch_in_which_nothing_is_asked_is_trls_zero(shared, backbone):
    from trl.trainer.utils import add_fused_lm_head

    from cso_lab.training.backbone import load_model

    ids, real = padded(SHAPES["shared"])
    results = []
    for share in (False, True):
        model = load_model(config(shared, f"backbone={backbone}"))
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
        if share:
            share_prefixes(model, 10_000, 50)
        out = model(input_ids=ids, attention_mask=real, labels=torch.full_like(ids, IGNORED), fused_lm_head=True)
        out.loss.backward()
        # Every weight takes part, or processes would wait for one another's gradients.
        results.append((out, [name for name, weight in model.named_parameters() if weight.grad is not None]))
        assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())
    (stock, reached), (found, reached_too) = results
    assert found.loss.item() == 0 and reached == reached_too
    for field in ("log_probs", "entropy", "mean_logits", "is_top1", "label_mask"):
        assert torch.equal(found[field], stock[field])


@pytest.mark.parametrize("backbone", ["tiny_llama", "tiny_qwen"])
def test_calls_that_bring_no_tree_stay_what_they_were(shared, backbone):
    """A model that shares prefixes still answers padded rows, and rows without padding, as it did."""
    from cso_lab.training.backbone import load_model

    model = load_model(config(shared, f"backbone={backbone}"))
    ids, real = padded(SHAPES["long"] + SHAPES["shared"])
    calls = [{"input_ids": ids, "attention_mask": real}, {"input_ids": ids[:1]}]
    with torch.no_grad():
        before = [model(**call).logits for call in calls]
        share_prefixes(model, 10_000, 50)
        after = [model(**call).logits for call in calls]
    for rows, (old, new) in zip((real.bool(), torch.ones_like(ids[:1]).bool()), zip(before, after, strict=True), strict=True):
        torch.testing.assert_close(new[rows], old[rows], rtol=1e-5, atol=1e-5)
