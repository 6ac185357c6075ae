"""DPO with weights of a reply's strategy and of its wording: which tokens are the strategy's, and what the weights change."""

import json
import math

import pytest
import torch
from project import composed
from trainings import ARCHITECTURES, config, trainer_of

from cso_lab.core.errors import UserError
from cso_lab.core.records import SUPPORTER, Turn, supporter_message
from cso_lab.core.strategies import SETS
from cso_lab.pipeline.check import check
from cso_lab.training.strategy_tokens import strategy_tokens

ONE_BATCH = ("training.batching=random", "training.max_rows=4", "training.max_prompt_length=2000")


class Pieces:
    """A tokenizer whose tokens are the given pieces of text."""

    def __init__(self, *pieces):
        self.pieces, self.ids = pieces, list(range(len(pieces)))

    def decode(self, ids, **_):
        return "".join(self.pieces[i] for i in ids)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (("(", "Af", "firmation", ")", " You", " did."), (0, 4)),
        (("(Affirmation)", " You"), (0, 1)),
        # a token that straddles a border counts to the strategy
        (("\n(", "Affirmation", ") You", " did"), (0, 3)),
        # blanks and punctuation of their own do not
        (("\n", "(", "Affirmation", ")", ".", " (Really.)"), (1, 4)),
        (("You", " (did", ")."), (0, 0)),
        (("(You did",), (0, 0)),
    ],
)
def test_a_token_with_a_character_of_the_strategy_is_of_the_strategy(pieces, expected):
    tokenizer = Pieces(*pieces)
    found = strategy_tokens(tokenizer.ids, tokenizer)
    assert (found.start, found.stop) == expected


@pytest.mark.parametrize("backbone", ARCHITECTURES)
def test_every_strategy_is_found_in_the_replies_of_every_family(shared, backbone):
    from cso_lab.training.backbone import load_chat_format

    chat = load_chat_format(config(shared, f"backbone={backbone}"))
    messages = [{"role": "user", "content": "I cannot sleep."}]
    prompt = chat.prompt(messages)
    for strategy in {name for strategies in SETS.values() for name in strategies.names}:
        for wording in ("You (and I) could rest.", "...", "(No) way", "é, 你好"):
            reply = chat.response(messages, supporter_message(Turn(SUPPORTER, wording, strategy)))
            ids = chat.ids(prompt + reply)[len(chat.ids(prompt)) :]
            found = strategy_tokens(ids, chat.tokenizer)
            label, inside = f"({strategy})", [ids[i] for i in found]
            assert label in chat.tokenizer.decode(inside)
            assert all(label not in chat.tokenizer.decode(part) for part in (inside[1:], inside[:-1]))
            assert chat.tokenizer.decode(ids[: found.start]).strip() == ""
            assert wording[1:] in chat.tokenizer.decode(ids[found.stop :])


def log_of(folder):
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.long
@pytest.mark.parametrize(("mode", "precomputed"), [("lora", True), ("full", False)])
def test_with_both_weights_1_it_is_dpo_bit_for_bit(shared, data, tmp_path, mode, precomputed):
    from safetensors.torch import load_file

    from cso_lab.training.train import train

    line = [f"mode={mode}", f"training.precompute_ref_log_probs={precomputed}"]
    both = {"dpo": ["algo=dpo"], "weighted": ["algo=dpo_strategy", "algorithm.response_weight=1"]}
    for name, choice in both.items():
        train(config(shared, *line, *choice), data, tmp_path / name)
    logs = [[{k: v for k, v in entry.items() if "time" not in k} for entry in log_of(tmp_path / name)] for name in both]
    assert logs[0] == logs[1] and len(logs[0]) == 2
    plain, weighted = (load_file(next((tmp_path / name / "checkpoint").glob("*.safetensors"))) for name in both)
    assert all(torch.equal(plain[name], weighted[name]) for name in plain)


@pytest.mark.parametrize(
    ("share", "precomputed"), [(True, True), pytest.param(False, True, marks=pytest.mark.long), (True, False)]
)
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.5, 2.0)])
def test_the_loss_is_dpos_on_the_weighted_sums_of_policy_and_reference(shared, data, tmp_path, weights, share, precomputed):
    from cso_lab.training.backbone import load_model

    line = [f"algorithm.strategy_weight={weights[0]}", f"algorithm.response_weight={weights[1]}", "algorithm.beta=0.4"]
    line += [f"training.share_prefixes={share}", f"training.precompute_ref_log_probs={precomputed}", *ONE_BATCH]
    cfg = config(shared, "algo=dpo_strategy", "mode=lora", *line)
    trainer, chat, rows, _ = trainer_of(cfg, data, tmp_path)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a policy that is not its reference
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    [batch] = list(trainer.get_train_dataloader())
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)).item()

    def weighted_sum(model, row, side):
        prompt, ids = chat.ids(row["prompt"]), chat.ids(row["prompt"] + row[side])
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        of_strategy = strategy_tokens(ids[len(prompt) :], chat.tokenizer)
        assert len(of_strategy) > 0
        positions = enumerate(range(len(prompt), len(ids)))
        return sum(weights[k not in of_strategy] * log_probs[i - 1, ids[i]].item() for k, i in positions)

    policy, reference = trainer.model.double().eval(), load_model(cfg).double()
    margins = [
        sum(
            sign * (weighted_sum(policy, row, side) - weighted_sum(reference, row, side))
            for side, sign in (("chosen", 1), ("rejected", -1))
        )
        for row in rows
    ]
    expected = sum(math.log1p(math.exp(-0.4 * margin)) for margin in margins) / len(margins)
    assert loss == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["algorithm.strategy_weight=-1"], "algorithm.strategy_weight=-1: should be greater than or equal to 0"),
        (["algorithm.response_weight=inf"], "algorithm.response_weight=inf: should be a finite number"),
        (["algorithm.strategy_weight=0"], "algorithm.strategy_weight and algorithm.response_weight are both 0"),
    ],
)
def test_weights_that_cannot_work_are_refused_before_any_work(line, expected):
    with pytest.raises(UserError, match=expected):
        check(composed("algo=dpo_strategy", *line))
