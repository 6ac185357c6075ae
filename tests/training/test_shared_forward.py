"""TRL's six trainers with shared prefixes against the same trainers without: losses, gradients, whole trainings; the order of rows."""

from collections import Counter

import pytest
import torch
from trainings import ALGOS, ARCHITECTURES, config, fill_adapter

MODES = ("lora", "full")
# The form of a tree's mask, and what makes a step one of whole trees, or of cut ones that are recomputed one by one as well.
WHOLE = ("training.tokens_per_tree=100000",)
CUT = ("training.tokens_per_tree=340", "training.max_activation_tokens=400")
FORMS = {"blocks": CUT, "dense": WHOLE, "flex": WHOLE}
# Gemma-2 has neither SDPA nor only full layers, which blocks need: on CPUs too, auto gives it the dense mask.
GEMMA_FORMS = {"auto": CUT, "dense": WHOLE, "flex": WHOLE}
QUICK = {("tiny_llama", "lora", "dpo"), ("tiny_qwen", "full", "kto"), ("tiny_gemma", "lora", "orpo")}
CELLS = [
    pytest.param(*cell, marks=() if cell in QUICK else pytest.mark.long)
    for cell in (
        *((backbone, mode, algo) for backbone in ARCHITECTURES for mode in MODES for algo in ALGOS),
        ("tiny_llama", "lora", "dpo_sft"),
    )
]


def before_training(cfg, data, out):
    """(trainer, batch) of a training that is about to begin."""
    from cso_lab.training.arguments import batches, trainer_arguments
    from cso_lab.training.backbone import load_tokenizer
    from cso_lab.training.chat_format import ChatFormat
    from cso_lab.training.rows import fit_rows, read_rows
    from cso_lab.training.trainer import build_trainer

    chat = ChatFormat(load_tokenizer(cfg))
    rows, _ = fit_rows(read_rows(data, cfg.algorithm.rows), chat, 2000, 500, None, 0)
    trainer = build_trainer(cfg, trainer_arguments(cfg, *batches(cfg), out), rows, chat.tokenizer, out, None)
    fill_adapter(trainer.model)
    trainer.model.train()
    [batch] = list(trainer.get_train_dataloader())[:1]
    return trainer, batch


def one_step(trainer, batch):
    """Loss and gradients of a batch."""
    trainer.model.zero_grad()
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(dict(batch)))
    loss.backward()
    gradients = [weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None]
    return loss.item(), torch.cat(gradients)


def assert_equal(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert expected[1].norm() > 0
    assert (found[1] - expected[1]).norm() <= 2e-5 * expected[1].norm()


def step_of(backbone, mode, algo):
    """The command line of a cell's step of four rows. Reference log-probabilities come before it, or in it, where there are any."""
    line = [f"algo={algo}", f"backbone={backbone}", f"mode={mode}", "training.max_prompt_length=2000"]
    line += ["training.per_device_batch_size=4", f"training.precompute_ref_log_probs={str(mode == 'full').lower()}"]
    return line + ([] if algo == "sft" else ["algorithm.beta=0.5"])


@pytest.mark.parametrize(("backbone", "mode", "algo"), CELLS)
def test_loss_and_gradient_are_those_of_the_stock_trainer(shared, data, tmp_path, backbone, mode, algo):
    """Whatever the form of the mask, with activations kept and with layers that are run again in the backward pass."""
    line = step_of(backbone, mode, algo)
    stock = one_step(*before_training(config(shared, *line, "training.share_prefixes=false"), data, tmp_path / "stock"))
    forms = GEMMA_FORMS if backbone == "tiny_gemma" else FORMS
    for form, trees in forms.items():
        asked = (f"training.tree_mask={form}", "training.gradient_checkpointing=true", *trees)
        trainer, batch = before_training(config(shared, *line, *asked), data, tmp_path / form)
        assert_equal(one_step(trainer, batch), stock)
        trainer.model.activation_checkpointing_enable()  # as the trainer does when a training begins
        assert trainer.model.is_gradient_checkpointing
        assert_equal(one_step(trainer, batch), stock)


@pytest.mark.long
def test_layers_are_run_again_by_the_older_checkpoint_as_well(shared, data, tmp_path):
    """The reentrant one, which TRL takes for adapters under ZeRO-3; here also inside trees that are recomputed one by one."""
    line = step_of("tiny_llama", "lora", "dpo")
    kept, *again = (
        before_training(config(shared, *line, *trees, "training.gradient_checkpointing=true"), data, tmp_path / str(number))
        for number, trees in enumerate((WHOLE, WHOLE, CUT))
    )
    expected = one_step(*kept)
    for trainer, batch in again:
        trainer.model.activation_checkpointing_enable({"use_reentrant": True})
        assert_equal(one_step(trainer, batch), expected)


@pytest.mark.long
@pytest.mark.parametrize(("mode", "form"), [("lora", "dense"), ("full", "blocks")])
def test_in_bfloat16_layers_that_are_run_again_change_nothing(shared, data, tmp_path, mode, form):
    """As on GPUs: autocast around the forward pass alone."""
    line = [*step_of("tiny_llama", mode, "dpo"), "training.dtype=bfloat16", f"training.tree_mask={form}", *CUT]
    trainer, batch = before_training(config(shared, *line), data, tmp_path)
    loss, gradient = one_step(trainer, batch)
    trainer.model.activation_checkpointing_enable()
    again, its_gradient = one_step(trainer, batch)
    assert again == loss and torch.equal(its_gradient, gradient)


@pytest.mark.long
@pytest.mark.parametrize("algo", ["sft", "dpo", "kto"])  # the rows of the three files; losses of all six are compared above
def test_a_short_training_ends_in_the_same_weights(shared, data, tmp_path, algo):
    from safetensors.torch import load_file

    from cso_lab.training.train import train

    ends = []
    for share in ("true", "false"):
        cfg = config(
            shared, f"algo={algo}", "mode=full", "training.per_device_batch_size=4", f"training.share_prefixes={share}"
        )
        cfg.training.max_prompt_length = 2000
        train(cfg, data, tmp_path / share)
        ends.append(load_file(next((tmp_path / share / "checkpoint").glob("*.safetensors"))))
    for name, weight in ends[0].items():
        torch.testing.assert_close(weight, ends[1][name], rtol=1e-3, atol=2e-5)


def test_rows_of_a_dialogue_travel_together_and_neighbours_are_of_others():
    from cso_lab.training.samplers import tree_order

    dialogues = [name for name in "abcdef" for _ in range(8)]
    prompts = [f"{name}{i}" for name, i in zip(dialogues, list(range(8)) * 6, strict=True)]
    order = tree_order(dialogues, prompts, 16, seed=0)
    assert sorted(order) == list(range(48))
    for first in (0, 16, 32):
        batch = [dialogues[row] for row in order[first : first + 16]]
        assert sorted(Counter(batch).values()) == [8, 8]
        assert all(a != b for a, b in zip(batch, batch[1:], strict=False))
    assert order == tree_order(dialogues, prompts, 16, seed=0) != tree_order(dialogues, prompts, 16, seed=1)


def test_a_dialogue_larger_than_half_a_batch_is_cut_among_neighbours():
    from cso_lab.training.samplers import TreeSampler, tree_order

    prompts = [f"{i:02}" for i in range(40)]
    order = tree_order(["a"] * 40, prompts, 16, seed=3)
    assert sorted(order) == list(range(40))
    sampler = TreeSampler(["a"] * 40, prompts, 16, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    assert sorted(first) == sorted(sampler) == list(range(40))
    assert first != list(sampler)
