"""The decoding strategies against a scripted model: what it is asked, in which order, and which of its words become the reply."""

import json
from functools import cache

import pytest
from hydra.utils import instantiate
from project import composed

from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn, prompt_messages
from cso_lab.core.strategies import EXTES
from cso_lab.generation.decoding_strategies import WithExample

HISTORIES = [(Turn(SEEKER, "I failed."),), (Turn(SEEKER, "Hello."), Turn(SUPPORTER, "Hi.", "Affirmation"), Turn(SEEKER, "Ok."))]
TRAINING = [
    Dialogue(f"train-{n}", "scene", "d", (Turn(SEEKER, f"seeker {n}"), Turn(SUPPORTER, f"supporter {n}", "Share Information")))
    for n in range(20)
]


class ScriptedModel:
    """Answers with "(Affirmation) RN", N counting the rounds; what the script holds for (round, conversation) instead."""

    def __init__(self, script=None):
        self.script = script or {}
        self.rounds: list[tuple[list, bool]] = []

    def __call__(self, conversations, free=False):
        self.rounds.append((list(conversations), free))
        number = len(self.rounds)
        return [self.script.get((number, i), f"(Affirmation) R{number}.{i}") for i in range(len(conversations))]


def decode(name, model, tmp_path):
    """(the openings, the final replies)"""
    decoding = instantiate(method(name))
    decoding.prepare(TRAINING, tmp_path)
    openings = [decoding.opening(prompt_messages(history, EXTES)) for history in HISTORIES]
    return openings, decoding(openings, model)


def said(reply, instruction):
    return [{"role": "assistant", "content": reply}, {"role": "user", "content": instruction}]


@cache
def method(name):
    return composed(f"decoding={name}").decoding.method


def test_plain_is_one_question_a_turn(tmp_path):
    model = ScriptedModel()
    openings, replies = decode("plain", model, tmp_path)
    assert replies == ["(Affirmation) R1.0", "(Affirmation) R1.1"]
    assert model.rounds == [(openings, False)]
    assert openings == [prompt_messages(history, EXTES) for history in HISTORIES]


def test_direct_refine_shows_the_model_its_draft_and_takes_the_second_reply(tmp_path):
    model = ScriptedModel()
    openings, replies = decode("direct_refine", model, tmp_path)
    refine = method("direct_refine").refine
    assert replies == ["(Affirmation) R2.0", "(Affirmation) R2.1"]
    assert model.rounds == [
        (openings, False),
        ([[*opening, *said(f"(Affirmation) R1.{i}", refine)] for i, opening in enumerate(openings)], False),
    ]


def test_self_refine_asks_for_criticism_in_free_form_and_then_for_the_reply(tmp_path):
    model = ScriptedModel({(2, 0): "Too cold.", (2, 1): "Too long."})
    openings, replies = decode("self_refine", model, tmp_path)
    told = method("self_refine")
    assert replies == ["(Affirmation) R3.0", "(Affirmation) R3.1"]
    assert [free for _, free in model.rounds] == [False, True, False]
    criticised = [[*opening, *said(f"(Affirmation) R1.{i}", told.criticise)] for i, opening in enumerate(openings)]
    assert model.rounds[1][0] == criticised
    assert model.rounds[2][0] == [
        [*criticised[0], *said("Too cold.", told.refine)],
        [*criticised[1], *said("Too long.", told.refine)],
    ]


@pytest.mark.parametrize(("name", "silent"), [("direct_refine", 1), ("self_refine", 1), ("self_refine", 2)])
def test_a_model_without_words_is_asked_no_further_and_the_other_turns_go_on(name, silent, tmp_path):
    model = ScriptedModel({(silent, 0): ""})
    _, replies = decode(name, model, tmp_path)
    assert replies[0] == "" and replies[1].startswith(f"(Affirmation) R{len(model.rounds)}")
    assert [len(asked) for asked, _ in model.rounds] == [2] * silent + [1] * (len(model.rounds) - silent)


def test_nothing_is_asked_when_no_turn_is_left_to_go_on_with(tmp_path):
    model = ScriptedModel({(1, 0): "", (1, 1): " "})
    assert decode("self_refine", model, tmp_path)[1] == ["", ""] and len(model.rounds) == 1


def test_the_example_is_a_training_dialogue_in_every_prompt_and_in_the_run_folder(tmp_path):
    openings, _ = decode("with_example", ScriptedModel(), tmp_path)
    kept = json.loads((tmp_path / "example.json").read_text(encoding="utf-8"))
    n = int(kept["id"].removeprefix("train-"))
    for opening, history in zip(openings, HISTORIES, strict=True):
        system, *turns = prompt_messages(history, EXTES)
        assert opening[1:] == turns
        assert opening[0]["content"].startswith(system["content"])
        assert opening[0]["content"].endswith(f"\nSeeker: seeker {n}\nSupporter: (Share Information) supporter {n}")
    assert kept["seed"] == 0 and kept["turns"][1] == {
        "speaker": SUPPORTER,
        "text": f"supporter {n}",
        "strategy": "Share Information",
    }


def test_the_example_follows_from_the_seed(tmp_path):
    assert instantiate(composed("decoding=with_example", "seed=3").decoding.method).seed == 3

    def drawn(seed):
        WithExample("Look:", seed).prepare(TRAINING, tmp_path)
        return json.loads((tmp_path / "example.json").read_text(encoding="utf-8"))["id"]

    assert drawn(3) == drawn(3)
    assert len({drawn(seed) for seed in range(6)}) > 1


def test_without_training_dialogues_there_is_no_example(tmp_path):
    with pytest.raises(UserError, match="with_example takes its example from the training dialogues"):
        instantiate(method("with_example")).prepare([], tmp_path)
