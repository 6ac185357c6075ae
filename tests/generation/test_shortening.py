"""Conversations that are too long for a model on a server lose their oldest turns, as few as needed."""

import pytest
from fakes import FakeOpenAI, Reply
from generation.test_served import dialogue, echo, last, lines, served, usage
from project import composed
from refusals import NO_LIMIT_NAMED, TOO_LONG, UNPROCESSABLE, bad_request, refusing, with_limit, words

from cso_lab.core.errors import UserError
from cso_lab.core.records import prompt_messages
from cso_lab.core.strategies import EXTES
from cso_lab.generation.generate import generate
from cso_lab.llm.errors import ServiceError

LONG = dialogue("a", 8)
TURNS = [prompt_messages(LONG.turns[: 2 * number + 1], EXTES) for number in range(8)]
REPLY = 40
LIMIT = words(TURNS[4]) + REPLY
"""Room for the system prompt and the nine turns up to the fifth reply."""
DROPPED = [
    (messages, start)
    for messages in TURNS
    for start in range(1, len(messages), 2)
    if words(messages[:1]) + words(messages[start:]) + REPLY > LIMIT
]
"""Each seeker turn that has to go with the reply to it."""


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def answered(server: FakeOpenAI) -> dict[str, list[dict]]:
    """The last messages that were sent of each conversation, by what its seeker says last."""
    return {last(body): body["messages"] for body in server.requests}


@pytest.mark.parametrize("wording", TOO_LONG)
def test_the_oldest_turns_are_dropped_until_the_named_limit_is_met(wording, tmp_path):
    with FakeOpenAI(with_limit(LIMIT, echo, TOO_LONG[wording])) as server:
        rows = served(tmp_path, server, f"generation.max_new_tokens={REPLY}", dialogues=[LONG])
    assert [row["response"] for row in rows] == [f"You said: a, I feel low {i}" for i in range(8)]
    sent = answered(server)
    for messages in TURNS:
        kept = sent[messages[-1]["content"]]
        assert kept[0] == messages[0] and kept[1:] == messages[-len(kept) + 1 :]
        assert kept[1]["role"] == "user" and words(kept) + REPLY <= LIMIT
        # One more seeker turn and its reply would not have fitted, but for the estimate.
        assert len(kept) == len(messages) or words(kept) + REPLY > LIMIT - 2 * words(messages[1:3])
    assert usage(tmp_path)["shortened"]["prompts"] == 3 and usage(tmp_path)["without_words"] == {}
    assert len(server.requests) <= 8 + 3 * 2


@pytest.mark.parametrize("wording", NO_LIMIT_NAMED)
def test_without_a_named_limit_they_are_dropped_one_by_one(wording, tmp_path, capsys):
    with FakeOpenAI(with_limit(LIMIT, echo, NO_LIMIT_NAMED[wording])) as server:
        rows = served(tmp_path, server, f"generation.max_new_tokens={REPLY}", dialogues=[LONG])
        assert len(rows) == 8 and usage(tmp_path)["shortened"] == {"prompts": 3, "turns": 2 * len(DROPPED)}
        assert len(server.requests) == 8 + len(DROPPED)
        assert (
            "3 of 8 prompts were too long for openai/tiny and were sent without their oldest turns" in capsys.readouterr().out
        )
        (tmp_path / "predictions.jsonl").unlink()
        assert served(tmp_path, server, f"generation.max_new_tokens={REPLY}", dialogues=[LONG]) == rows
        assert len(server.requests) == 8 + len(DROPPED)
        assert usage(tmp_path)["shortened"] == {"prompts": 3, "turns": 2 * len(DROPPED)}


def test_a_prompt_that_no_dropping_makes_fit_counts_as_unparsed(tmp_path):
    long = dialogue("b " * 300, 2)
    with FakeOpenAI(with_limit(LIMIT, echo)) as server:
        rows = served(tmp_path, server, f"generation.max_new_tokens={REPLY}", dialogues=[dialogue("a", 2), long])
    assert [row["strategy"] for row in rows] == ["Affirmation", "Affirmation", None, None]
    assert all("prompt is too long for the model" in reason for reason in usage(tmp_path)["without_words"])
    assert len(server.requests) == 2 + 1 + 2


@pytest.mark.long
def test_a_dialogue_of_many_turns_is_asked_a_bounded_number_of_times(tmp_path):
    many = dialogue("a", 8)
    turns = sum([list(many.turns)] * 5, [])
    long = type(many)("a", "", "", tuple(turns))
    refusal = NO_LIMIT_NAMED["no limit"](0, 0, 0)

    def reply(body: dict) -> Reply:
        return echo(body) if len(body["messages"]) == 2 else refusal

    with FakeOpenAI(reply) as server:
        rows = served(tmp_path, server, dialogues=[long])
    assert (
        max(len([1 for body in server.requests if body["seed"] == seed]) for seed in {b["seed"] for b in server.requests}) == 21
    )
    assert [row["strategy"] for row in rows] == ["Affirmation"] * 21 + [None] * 19


def test_the_last_seeker_turn_stays_when_a_reply_is_refined(tmp_path):
    wordy = dialogue("so " * 40, 6)
    limit, draft = words(prompt_messages(wordy.turns[:11], EXTES)) + REPLY, "(Affirmation)" + " word" * 40
    with FakeOpenAI(with_limit(limit, lambda body: Reply(draft))) as server:
        rows = served(tmp_path, server, "decoding=self_refine", f"generation.max_new_tokens={REPLY}", dialogues=[wordy])
    assert [row["strategy"] for row in rows] == ["Affirmation"] * 6
    refined = [body["messages"] for body in server.requests if body["messages"][-2]["content"] == draft]
    assert usage(tmp_path)["shortened"]["prompts"] >= 4 and len(refined) >= 12 + 4
    for messages in refined:
        contents = [message["content"] for message in messages]
        assert contents[contents.index(draft) - 1].startswith("so so")


def test_a_folded_system_prompt_is_kept(tmp_path):
    with FakeOpenAI(with_limit(LIMIT, echo)) as server:
        served(tmp_path, server, "backbone.system_role=false", f"generation.max_new_tokens={REPLY}", dialogues=[LONG])
    assert all(body["messages"][0]["content"].startswith(TURNS[0][0]["content"]) for body in server.requests)
    assert usage(tmp_path)["shortened"]["prompts"] >= 3


def test_a_served_checkpoint_loses_its_oldest_turns_too(tmp_path):
    checkpoint = ("backbone=tiny_llama", "generation.engine=server", "generation.client.model=openai/x")
    with FakeOpenAI(with_limit(LIMIT, echo)) as server:
        cfg = composed(*checkpoint, "algo=base", f"shared_dir={tmp_path}/shared", f"generation.max_new_tokens={REPLY}")
        cfg.generation.client.api_base = server.api_base
        generate(cfg, [LONG], EXTES, None, tmp_path)
    assert len(lines(tmp_path / "predictions.jsonl")) == 8 and usage(tmp_path)["shortened"]["prompts"] == 3


def test_refused_parameters_name_the_keys_of_the_cell(tmp_path):
    for refusal, advice in [
        (bad_request("'temperature' is not supported with this model"), "give generation.temperature=null"),
        (bad_request("max_tokens is too large: 512. This model supports at most 256"), "lower generation.max_new_tokens"),
        (TOO_LONG["vLLM"](400, 300, 512), "lower generation.max_new_tokens"),
    ]:
        with FakeOpenAI(refusal) as server:
            with pytest.raises(ServiceError, match=advice):
                served(tmp_path, server)


def test_one_refused_question_counts_as_unparsed_and_none_taken_at_all_is_an_error(tmp_path):
    with FakeOpenAI(refusing("a, I feel low 1", UNPROCESSABLE, echo)) as server:
        rows = served(tmp_path / "one", server)
        assert [row["strategy"] is None for row in rows] == [False, True, True, False, False]
        assert sum(usage(tmp_path / "one")["without_words"].values()) == 2
    with FakeOpenAI(UNPROCESSABLE) as server:
        with pytest.raises(UserError, match="takes no question at all, not even a greeting.*0 of 5 questions are answered"):
            served(tmp_path / "none", server)
    assert not (tmp_path / "none" / "predictions.jsonl").exists()
