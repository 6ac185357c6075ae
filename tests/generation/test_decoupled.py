"""A reply of two models: the planner decides its strategy, the generator its wording."""

import pytest
from project import composed

from cso_lab.core.records import SEEKER, Turn, prompt_messages
from cso_lab.core.strategies import EXTES, parse_reply
from cso_lab.generation.local import LocalModel

CONVERSATIONS = [
    prompt_messages([Turn(SEEKER, text)], EXTES) for text in ("I cannot sleep.", "I lost my job.", "They laughed.")
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


def configured(shared, algo, *line):
    fixed = ("backbone=tiny_llama", f"shared_dir={shared}", "hardware=cpu", "generation.dtype=float32", "mode=lora")
    return composed(f"algo={algo}", *fixed, "generation.max_new_tokens=24", *line)


@pytest.fixture(scope="module")
def adapters(shared, tmp_path_factory):
    """Returns the checkpoint of a planner with that of a generator below it, two adapters with random weights."""
    import torch
    from hydra.utils import instantiate
    from peft import get_peft_model

    from cso_lab.training.backbone import load_model

    cfg, folder = configured(shared, "dpo"), tmp_path_factory.mktemp("adapters")
    for seed, target in ((1, folder), (2, folder / "generator")):
        model = get_peft_model(load_model(cfg), instantiate(cfg.finetune_mode.peft, _convert_="all"))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
        model.save_pretrained(target)
    return folder


@pytest.mark.parametrize("form", ["format", "likelihood"])
def test_the_planner_decides_the_strategy_and_the_generator_the_wording(shared, adapters, form):
    line = f"generation.constrain={form}"
    with LocalModel(configured(shared, "dpo_decoupled", line), adapters, EXTES) as both:
        replies = both(CONVERSATIONS)
        free = both(CONVERSATIONS, free=True)
    with LocalModel(configured(shared, "dpo", line), adapters, EXTES) as planner:
        planned = planner(CONVERSATIONS)
    strategies = [parse_reply(reply, EXTES)[0] for reply in planned]
    with LocalModel(configured(shared, "dpo", line), adapters / "generator", EXTES) as generator:
        worded = [generator([each], strategy=name)[0] for each, name in zip(CONVERSATIONS, strategies, strict=True)]
        assert free == generator(CONVERSATIONS, free=True)
        assert generator(CONVERSATIONS) != replies or form == "likelihood"
    assert replies == worded
    assert all(reply != other for reply, other in zip(replies, planned, strict=True))


def test_without_a_constraint_the_planner_writes_up_to_the_closing_parenthesis(shared, adapters):
    from types import SimpleNamespace

    from cso_lab.generation.batched_decoding import Decoding, reply_ids
    from cso_lab.generation.planner import Planner
    from cso_lab.training.backbone import load_chat_format, load_model

    cfg = configured(shared, "dpo")
    model, chat = load_model(cfg, adapters, dtype="float32"), load_chat_format(cfg)
    prompts, decoding = [chat.prompt_ids(each) for each in CONVERSATIONS], Decoding(24, 0, (chat.tokenizer.eos_token_id,))
    free = reply_ids(model, prompts, decoding)
    closing = free[0][3]
    tokenizer = SimpleNamespace(get_vocab=lambda: {"(": 0, ").": closing})
    openings, chosen = Planner(model, tokenizer, carry=False).plan(prompts, decoding, [], False)
    for reply, index in zip(free, chosen, strict=True):
        end = reply.index(closing) + 1 if closing in reply else len(reply)
        assert openings[index] == reply[:end]
    assert len(openings[chosen[0]]) <= 4

    # what a planner never closes is the whole reply
    with LocalModel(configured(shared, "dpo_decoupled"), adapters, EXTES) as both:
        texts = both(CONVERSATIONS)
    unclosed = [(text, ids) for text, ids in zip(texts, free, strict=True) if ")" not in chat.tokenizer.decode(ids)]
    assert unclosed and all(text == chat.tokenizer.decode(ids, skip_special_tokens=True) for text, ids in unclosed)


def test_a_conversation_goes_on_from_what_both_models_have_computed(shared, adapters):
    longer = [
        [*each, {"role": "assistant", "content": "(Affirmation) You try."}, CONVERSATIONS[0][1]] for each in CONVERSATIONS
    ]
    cfg = configured(shared, "dpo_decoupled", "generation.constrain=format")
    found = []
    for carry in (False, True):
        with LocalModel(cfg, adapters, EXTES, carry=carry) as both:
            found.append([both(CONVERSATIONS), both(longer)])
    assert found[0] == found[1]
