"""How likely each strategy is as an opening, against the plainest way to tell: each opening alone, token by token."""

import pytest
from trainings import config

from cso_lab.chat.partner import Partner
from cso_lab.core.records import SEEKER, SUPPORTER, Turn, prompt_messages
from cso_lab.core.strategies import EXTES

HISTORY = [Turn(SEEKER, "I feel low."), Turn(SUPPORTER, "That is hard.", "Affirmation"), Turn(SEEKER, "What now?")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("backbone", ["tiny_llama", "tiny_qwen", "tiny_gemma"])
def test_each_is_the_product_of_its_tokens_probabilities(shared, backbone):
    import torch

    from cso_lab.generation.local import strategy_openings
    from cso_lab.training.backbone import load_model, load_tokenizer
    from cso_lab.training.chat_format import ChatFormat

    cfg = config(shared, f"backbone={backbone}", "algo=base")
    partner = Partner(cfg, shared, None)
    reply = partner.reply(HISTORY)

    model, form, messages = load_model(cfg), ChatFormat(load_tokenizer(cfg)), prompt_messages(HISTORY, EXTES)
    prompt, alone = form.prompt_ids(messages), {}
    for name, opening in zip(EXTES.names, strategy_openings(form, messages, EXTES), strict=True):
        assert form.tokenizer.decode(opening).strip().startswith(f"({name})")
        alone[name] = 1.0
        for length, token in enumerate(opening):
            with torch.inference_mode():
                logits = model(torch.tensor([prompt + opening[:length]])).logits[0, -1]
            alone[name] *= float(torch.softmax(logits, -1)[token])
    total = sum(alone.values())
    assert 0 < total < 1
    assert reply.mass == pytest.approx(total, rel=1e-3)
    assert list(reply.probabilities) == list(EXTES.names)
    assert sum(reply.probabilities.values()) == pytest.approx(1)
    assert reply.probabilities == pytest.approx({name: value / total for name, value in alone.items()}, rel=1e-3)


def test_an_opening_that_is_forced_changes_the_reply_and_not_the_probabilities(shared):
    partner = Partner(config(shared, "algo=base", "generation.max_new_tokens=40"), shared, None)
    free = partner.reply(HISTORY)
    assert free.strategy is None and free.text  # random weights name no strategy
    for name in EXTES.names:
        said = partner.reply(HISTORY, name)
        assert said.strategy == name
        assert (said.probabilities, said.mass) == (free.probabilities, free.mass)


def test_of_a_refined_reply_they_are_those_after_the_draft_and_what_was_said_of_it(shared):
    line = ("algo=base", "generation.max_new_tokens=40", "generation.constrain=format")
    plain = Partner(config(shared, *line), shared, None).reply(HISTORY)
    refined = Partner(config(shared, *line, "decoding=self_refine"), shared, None).reply(HISTORY)
    assert refined.strategy in EXTES.names and refined.probabilities != plain.probabilities


def test_sampling_follows_the_seed(shared):
    def said(seed):
        line = ("algo=base", "generation.temperature=1.0", f"generation.seed={seed}", "generation.max_new_tokens=20")
        return Partner(config(shared, *line), shared, None).reply(HISTORY).text

    assert said(1) == said(1) and len({said(seed) for seed in (1, 2, 3)}) > 1
