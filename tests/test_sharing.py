"""TRL's six trainers with shared prefixes against the same trainers without: losses, gradients, whole trainings; the order of rows."""

from collections import Counter

import pytest
import torch
from trainings import config

from cso_lab.dialogue import SEEKER, SUPPORTER, Turn, prompt_messages, supporter_message
from cso_lab.files import write_jsonl
from cso_lab.preferences.rows import kto_rows
from cso_lab.strategies import EXTES

ALGOS = ("sft", "dpo", "ipo", "kto", "simpo", "orpo")
ARCHITECTURES = ("tiny_llama", "tiny_qwen", "tiny_gemma")
ALL = [pytest.param(backbone, mode, marks=pytest.mark.long) for backbone in ARCHITECTURES for mode in ("lora", "full")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Rows of two dialogues of two turns, each with two dispreferred replies."""
    folder = tmp_path_factory.mktemp("rows")
    pairs, sft = [], []
    for name in ("ann", "bob"):
        history = [Turn(SEEKER, f"I am {name} and I cannot sleep.")]
        for turn in range(2):
            reply = Turn(SUPPORTER, f"That sounds hard, {name}, number {turn}.", EXTES.names[turn])
            prompt = prompt_messages(history, EXTES)
            sft.append({"prompt": prompt, "completion": [supporter_message(reply)], "dialogue": name})
            for other in range(2):
                strategies = {"chosen_strategy": reply.strategy, "rejected_strategy": EXTES.names[4 + other]}
                rejected = Turn(SUPPORTER, "No." if other else "Look on the bright side of it all.", EXTES.names[4 + other])
                replies = {"chosen": [supporter_message(reply)], "rejected": [supporter_message(rejected)]}
                pairs.append({"prompt": prompt, **replies, **strategies, "dialogue": name})
            history += [reply, Turn(SEEKER, f"It does not get better, {turn}.")]
    for name, rows in {"pairs": pairs, "sft": sft, "kto": kto_rows(pairs)}.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder


def first_step(cfg, data, out):
    """Loss and gradients of one batch of a training that is about to begin."""
    from cso_lab.training.arguments import batches, trainer_arguments
    from cso_lab.training.backbone import load_tokenizer
    from cso_lab.training.chat_format import ChatFormat
    from cso_lab.training.rows import fit_rows, read_rows
    from cso_lab.training.trainer import build_trainer

    chat = ChatFormat(load_tokenizer(cfg))
    rows, _ = fit_rows(read_rows(data, cfg.algorithm.rows), chat, 2000, 500, None, 0)
    trainer = build_trainer(cfg, trainer_arguments(cfg, *batches(cfg), out), rows, chat.tokenizer, out, None)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # an adapter begins as nothing, and half of its gradients with it
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    trainer.model.train()
    [batch] = list(trainer.get_train_dataloader())[:1]
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch))
    loss.backward()
    gradients = [weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None]
    return loss.item(), torch.cat(gradients)


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize(("backbone", "mode"), [("tiny_llama", "lora"), *ALL])
def test_loss_and_gradient_are_those_of_the_stock_trainer(shared, data, tmp_path, algo, backbone, mode):
    common = [f"algo={algo}", f"backbone={backbone}", f"mode={mode}", "training.max_prompt_length=2000"]
    common += (
        ["training.per_device_batch_size=4", "algorithm.beta=0.5"] if algo != "sft" else ["training.per_device_batch_size=4"]
    )
    stock = first_step(config(shared, *common, "training.share_prefixes=false"), data, tmp_path / "stock")
    for limit in ("training.tokens_per_tree=100000", "training.tokens_per_tree=300"):
        loss, gradient = first_step(config(shared, *common, limit, "training.kept_tokens=400"), data, tmp_path / "shared")
        assert loss == pytest.approx(stock[0], rel=1e-5)
        assert stock[1].norm() > 0
        assert (gradient - stock[1]).norm() <= 2e-5 * stock[1].norm()


@pytest.mark.parametrize("algo", [pytest.param(algo, marks=() if algo == "dpo" else pytest.mark.long) for algo in ALGOS])
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
    from cso_lab.training.batching import tree_order

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
    from cso_lab.training.batching import TreeSampler, tree_order

    prompts = [f"{i:02}" for i in range(40)]
    order = tree_order(["a"] * 40, prompts, 16, seed=3)
    assert sorted(order) == list(range(40))
    sampler = TreeSampler(["a"] * 40, prompts, 16, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    assert sorted(first) == sorted(sampler) == list(range(40))
    assert first != list(sampler)
