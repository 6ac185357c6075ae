"""The forms of a tree's mask against one another and against plain rows, for families of models; FlexAttention's compilations."""

from random import Random

import pytest
import torch
import transformers
from trainings import config

from cso_lab.training.flex_attention import BLOCK, compilations, flex_compiled, pad_tree, padded_length, tree_block_mask
from cso_lab.training.prefix_forest import IGNORED, TokenCount, build_prefix_forest, share_prefixes
from cso_lab.training.tree_attention import ancestors, attention_form, tree_attention_enabled, tree_mask, use_tree_attention

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,  # no power of two, and three query heads of each key head
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
}
BOTH = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 24}
GEMMA = {**BOTH, "query_pre_attn_scalar": 16}
FAMILIES = {
    "llama": ("Llama", {}, "sdpa", ("blocks", "dense")),
    "qwen2": ("Qwen2", {**BOTH, "use_sliding_window": True}, "sdpa", ("dense",)),
    "qwen3": ("Qwen3", {**BOTH, "use_sliding_window": True}, "sdpa", ("dense",)),
    "gemma2": ("Gemma2", {**GEMMA, "attn_logit_softcapping": 0.2}, "eager", ("dense",)),
    "gemma3": ("Gemma3", GEMMA, "sdpa", ("dense",)),
    # a window in every layer, and no kinds of layers
    "mistral": ("Mistral", {"sliding_window": 24}, "sdpa", ("dense",)),
    "mistral, long window": ("Mistral", {"sliding_window": 500}, "sdpa", ("blocks", "dense")),
}


def model_of(family: str):
    name, extra, attention, _ = FAMILIES[family]
    config_class = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")
    torch.manual_seed(0)
    model_config = config_class(**SHAPE, **extra)
    model = getattr(transformers, f"{name}ForCausalLM")._from_config(model_config, attn_implementation=attention)
    for weight in model.parameters():  # larger weights, so that attention is far from even
        weight.data.mul_(4) if weight.dim() > 1 else None
    return model.train()


def rows_of(seed: int, longest: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, mask, labels) of rows whose beginnings are shared."""
    random = Random(seed)
    rows = [[random.randrange(1, 97) for _ in range(longest // 2)]]
    rows += [row[: random.randrange(4, len(row))] + [random.randrange(1, 97) for _ in range(longest // 2)] for row in rows * 4]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = torch.tensor(row)
    labels = ids.masked_fill((ids == 0) | (torch.arange(ids.shape[1]) < 3), IGNORED)
    return ids, (ids != 0).long(), labels


def step(model, batch):
    """Log-probabilities and gradients of a batch."""
    ids, real, labels = batch
    model.zero_grad()
    out = model(input_ids=ids, attention_mask=real, labels=labels, fused_lm_head=True)
    (out.log_probs * torch.linspace(1, 2, out.log_probs.shape[1])).sum().backward()
    gradients = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    return out.log_probs.detach(), torch.cat(gradients)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_every_form_has_the_scores_and_gradients_of_plain_rows(family):
    from trl.trainer.utils import add_fused_lm_head

    batch, results, counts = rows_of(1, 120), {}, {}
    for form in ("plain", *FAMILIES[family][-1], "flex", "flex, layers run again"):
        model = model_of(family)
        add_fused_lm_head(model, outputs=("log_probs",))
        if form != "plain":
            counts[form] = TokenCount(1, 1)
            share_prefixes(model, 10_000, 10_000, form.split(",")[0], counts[form])
        if "again" in form:
            model.gradient_checkpointing_enable()
        results[form] = step(model, batch)
    scores, gradient = results.pop("plain")
    assert gradient.norm() > 0 and scores.std() > 0.1
    for form, (own_scores, own_gradient) in results.items():
        torch.testing.assert_close(own_scores, scores, rtol=1e-4, atol=1e-5, msg=lambda text, form=form: f"{form}: {text}")
        assert (own_gradient - gradient).norm() <= 2e-5 * gradient.norm(), form
    assert len({(count.computed, count.as_rows) for count in counts.values()}) == 1


@pytest.mark.long
@pytest.mark.parametrize("family", ["gemma2", "gemma3", "qwen3", "mistral"])
@pytest.mark.parametrize("changed", [{"sliding_window": 10_000}, {"attn_logit_softcapping": None}])
def test_the_window_and_the_cap_of_these_models_matter(family, changed):
    """So that the comparison above is one of windows and caps."""
    from trl.trainer.utils import add_fused_lm_head

    if not all(hasattr(model_of(family).config, key) for key in changed) or (
        family == "gemma3" and "sliding_window" not in changed
    ):
        pytest.skip("not a property of this family")
    scores = []
    for change in ({}, changed):
        model = model_of(family)
        for key, value in change.items():
            setattr(model.config, key, value)
            for layer in model.model.layers:
                setattr(layer.self_attn, key, value)
        add_fused_lm_head(model, outputs=("log_probs",))
        share_prefixes(model, 10_000, 10_000, "flex")
        scores.append(step(model, rows_of(1, 120))[0])
    assert (scores[0] - scores[1]).abs().max() > 0.01


@pytest.mark.parametrize("window", [None, 40])
def test_the_mask_of_blocks_is_the_mask_of_tokens(window):
    from torch.nn.attention.flex_attention import create_block_mask, create_mask

    ids, real, labels = rows_of(2, 700)
    [tree] = build_prefix_forest(ids, real, labels, 10_000).trees
    tokens, depth, end = pad_tree(tree.tokens, tree.depth, tree.end)
    assert len(tokens) == padded_length(len(tree)) > len(tree) > 5 * BLOCK
    mask = tree_block_mask(end, depth, window)
    dense = create_mask(mask.mask_mod, 1, 1, len(tokens), len(tokens), "cpu")[0, 0]
    assert torch.equal(dense[: len(tree), : len(tree)], ancestors(tree.end, tree.depth, window))
    assert torch.equal(dense[len(tree) :], torch.eye(len(tokens), dtype=torch.bool)[len(tree) :])
    expected = create_block_mask(mask.mask_mod, 1, 1, len(tokens), len(tokens), device="cpu")
    kept, needed = mask.to_dense().bool(), expected.to_dense().bool()
    assert not (needed & ~kept).any()
    if window is None:
        assert torch.equal(kept, needed) and kept.float().mean() < 0.6
        for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
            assert torch.equal(getattr(mask, name), getattr(expected, name)), name
    else:
        assert (mask.full_kv_num_blocks <= expected.full_kv_num_blocks).all()
        assert kept.sum() < tree_block_mask(end, depth, None).to_dense().sum()


@pytest.mark.parametrize(
    ("tokens", "length"), [(1, 256), (128, 256), (256, 256), (257, 384), (384, 384), (1500, 1536), (1536, 1536)]
)
def test_the_number_of_lengths_is_bounded(tokens, length):
    assert padded_length(tokens) == length


@pytest.mark.long
def test_trees_of_many_lengths_are_compiled_once_for_each_kind_of_layer(monkeypatch):
    """With gradients, which FlexAttention refuses on CPUs, though the backends without kernels have them."""
    from torch.nn.attention import flex_attention

    monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)
    attention, before = flex_compiled("aot_eager"), compilations()
    heads, softcap = 2, 30.0  # as many heads as the first tree has blocks

    def cap(score, batch, head, query, key):
        return softcap * torch.tanh(score / softcap)

    for blocks in (2, 3, 6, 2, 10, 8, 4, 9, 7, 5):
        tokens = BLOCK * blocks
        depth, end = torch.arange(tokens), torch.full((tokens,), tokens)
        for window in (None, 200):
            query = torch.randn(1, heads, tokens, 16, requires_grad=True)
            key = torch.randn(1, heads // 2, tokens, 16, requires_grad=True)
            mask = tree_block_mask(end, depth, window)
            attention(query, key, key, score_mod=cap, block_mask=mask, scale=0.3, enable_gqa=True).sum().backward()
            assert query.grad.isfinite().all()
    assert compilations() - before == 2


def test_on_gpus_auto_takes_flex_and_on_cpus_what_it_took():
    expected = {
        ("sdpa", "auto", "cuda"): "flex",
        ("eager", "auto", "cuda"): "flex",
        ("flex_attention", "auto", "cuda"): "flex",
        ("sdpa", "dense", "cuda"): "dense",
        ("sdpa", "auto", "cpu"): "blocks",
        ("eager", "auto", "cpu"): "dense",
        ("sdpa", "flex", "cpu"): "flex",
        ("flex_attention", "auto", "cpu"): "flex",
    }
    for (attention, form, device), used in expected.items():
        model_config = transformers.LlamaConfig(**SHAPE)
        model_config._attn_implementation = attention
        use_tree_attention(model_config, form, "cpu")  # where a trainer's model is before it is moved
        use_tree_attention(model_config, form, device)
        assert attention_form(model_config, form, device, 1536) == used, (attention, form, device)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_calls_that_bring_no_tree_stay_what_they_were(family):
    model = model_of(family).eval()
    ids, real, _ = rows_of(3, 40)
    with torch.no_grad():
        before = [model(input_ids=ids, attention_mask=real).logits, model(input_ids=ids[:1]).logits]
        share_prefixes(model, 10_000, 10_000, "flex")
        after = [model(input_ids=ids, attention_mask=real).logits, model(input_ids=ids[:1]).logits]
    for old, new, kept in zip(before, after, (real.bool(), torch.ones_like(ids[:1]).bool()), strict=True):
        torch.testing.assert_close(new[kept], old[kept], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_generation_takes_models_that_train_with_flex(family):
    ids, real, labels = rows_of(4, 40)
    [tree] = build_prefix_forest(ids, real, labels, 10_000).trees
    states = []
    for attention in (FAMILIES[family][2], "flex_attention"):
        model = model_of(family).eval()
        model.config._attn_implementation = attention
        with torch.no_grad(), tree_attention_enabled(model.config):
            mask = tree_mask(tree.end, tree.depth, model.config, model.dtype)
            states.append(model.model(input_ids=tree.tokens[None], position_ids=tree.depth[None], **mask).last_hidden_state)
        assert model.config._attn_implementation == attention
    torch.testing.assert_close(*states)


@pytest.mark.long
def test_a_training_says_which_attention_it_used_and_what_was_compiled(shared, data, tmp_path):
    from cso_lab.training.train import train

    summaries = {}
    for form in ("auto", "flex"):
        line = ("algo=dpo", "training.per_device_batch_size=4", f"training.tree_mask={form}", "training.max_steps=1")
        cfg = config(shared, *line)
        cfg.training.max_prompt_length = 2000
        summaries[form] = train(cfg, data, tmp_path / form)
    assert [summary["attention"] for summary in summaries.values()] == ["blocks", "flex"]
    assert [summary["compilations"] for summary in summaries.values()] == [0, 0]
    assert summaries["auto"]["tokens_computed"] == summaries["flex"]["tokens_computed"]
    assert summaries["flex"]["loss"] == pytest.approx(summaries["auto"]["loss"], rel=1e-5)
