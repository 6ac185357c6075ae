"""Replies of reasoning models, and replies that ended at the limit of tokens, over real HTTP to a server on loopback."""

import asyncio
import json
import re
from dataclasses import replace

import pytest
from fakes import FakeOpenAI, Reply, failure
from llm.test_client import DIALOGUE, HISTORY, MODEL, SCORES, ask, client, playing, question, role_config, within
from loopback import answering, journal, search, trees

from cso_lab.core.records import SeekerReply
from cso_lab.llm.client import Client
from cso_lab.llm.errors import RefusedError
from cso_lab.llm.journal import Journal
from cso_lab.roles.parsing import parse_judge, trim_utterance

HALF = Reply("It is hard. I kn", finish_reason="length")
WHOLE = Reply("It is hard. I know that.")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def supporter(server, **changes):
    """The supporter's utterance, by players with these settings."""
    config = role_config(supporter={"max_tokens": 20}) | changes
    return playing(server, lambda players: players.supporter(DIALOGUE, HISTORY, "Affirmation", ""), config=config)


def test_a_cut_utterance_is_asked_for_once_more_with_more_room():
    with FakeOpenAI(HALF, WHOLE) as server:
        assert supporter(server) == "It is hard. I know that."
    assert [body["max_tokens"] for body in server.requests] == [20, 40]
    assert server.requests[0]["seed"] == server.requests[1]["seed"]


def test_an_utterance_that_is_cut_again_ends_with_its_last_whole_sentence():
    with FakeOpenAI(HALF) as server:
        assert supporter(server) == "It is hard."
    assert len(server.requests) == 2


def test_refused_cut_utterances_are_asked_for_anew_and_keep_their_room():
    with FakeOpenAI(HALF, HALF, WHOLE) as server:
        assert supporter(server, cut_replies="refuse") == "It is hard. I know that."
    assert [body["max_tokens"] for body in server.requests] == [20, 40, 40]
    assert len({body["seed"] for body in server.requests}) == 2
    with FakeOpenAI(HALF) as server:
        with pytest.raises(RefusedError, match=r"supporter: .* a cut reply .*: raise roles\.supporter\.max_tokens"):
            supporter(server, cut_replies="refuse")
    assert len(server.requests) == 1 + 3  # the one with less room is no attempt


def test_without_a_whole_sentence_nothing_can_be_used_up_to():
    with FakeOpenAI(Reply("It is so", finish_reason="length"), Reply("It is so very", finish_reason="length"), WHOLE) as server:
        assert supporter(server) == "It is hard. I know that."
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "refusal",
    [
        "max_tokens must be <= 30",
        "This model's maximum context length is 100 tokens. However, you requested 110 tokens (70 in the messages, 40 in the completion).",
    ],
)
def test_where_the_server_has_no_more_room_a_cut_utterance_is_used_as_far_as_it_goes(refusal):
    with FakeOpenAI(lambda body: failure(400, refusal) if body["max_tokens"] > 20 else HALF) as server:
        assert supporter(server) == "It is hard."
    assert [body["max_tokens"] for body in server.requests] == [20, 40, 20]


def test_a_reply_that_the_servers_own_limit_cut_gets_no_more_room():
    config = role_config(supporter={"max_tokens": None})
    with FakeOpenAI(HALF) as server:
        playing(server, lambda players: players.supporter(DIALOGUE, HISTORY, "Affirmation", ""), config=config)
    assert len(server.requests) == 1 and "max_tokens" not in server.requests[0]


@pytest.mark.parametrize(
    ("reply", "trimmed"),
    [
        ("Thank you. </end/> And as I said", "Thank you. </end/>"),
        ('"I hear you. You', "I hear you."),
        ("“你辛苦了。我觉得", "你辛苦了。"),
        ("No whole", ""),
    ],
)
def test_what_is_used_of_a_cut_utterance(reply, trimmed):
    assert trim_utterance(reply) == trimmed


def test_a_seeker_who_was_cut_after_leaving_has_left():
    with FakeOpenAI(Reply("Thank you. </end/> And as I", finish_reason="length")) as server:
        left = playing(server, lambda players: players.seeker(DIALOGUE, HISTORY[:2], ""))
    assert left == SeekerReply("Thank you.", True)


def test_cut_scores_are_no_scores():
    with FakeOpenAI(Reply(SCORES + " because", finish_reason="length"), Reply(SCORES)) as server:
        asking = client(server)
        assert ask(asking, parse_judge)["H"] == 4
    assert [body["max_tokens"] for body in server.requests] == [17, 17]
    assert asking.usage.to_json()["cut"] == {"judge": 1} and "trimmed" not in asking.usage.to_json()
    with FakeOpenAI(Reply(SCORES, finish_reason="length")) as server:
        with pytest.raises(RefusedError, match=r"a cut reply \(finish_reason: length\): raise roles\.judge\.max_tokens"):
            ask(client(server), parse_judge)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(None, reasoning={"reasoning_content": SCORES}, finish_reason="length"),
        Reply("", reasoning={"reasoning": SCORES}),
        Reply(f"<think>{SCORES}", finish_reason="length"),
        Reply(f"{SCORES}</think>"),
        Reply("", usage={"prompt_tokens": 7, "completion_tokens": 17, "completion_tokens_details": {"reasoning_tokens": 17}}),
    ],
)
def test_reasoning_is_never_the_answer_and_the_key_to_raise_is_named(reply):
    with FakeOpenAI(reply) as server:
        said = r"an empty reply.*wrote its reasoning and no answer: raise roles\.judge\.max_tokens"
        with pytest.raises(RefusedError, match=said):
            ask(client(server), parse_judge)
    assert len(server.requests) == 3


def test_an_answer_beside_its_reasoning_is_the_answer():
    with FakeOpenAI(Reply(SCORES, reasoning={"reasoning_content": '{"empathy": 0}', "reasoning": "hm"})) as server:
        assert ask(client(server), parse_judge)["E"] == 3
    with FakeOpenAI(Reply(f"<think>{SCORES.replace('3', '0')}</think>\n{SCORES}")) as server:
        assert ask(client(server), parse_judge)["E"] == 3


@pytest.mark.parametrize(
    ("usage", "completion", "reasoning"),
    [
        (
            {"completion_tokens": 50, "total_tokens": 57, "completion_tokens_details": {"reasoning_tokens": 40}},
            50,
            40,
        ),  # OpenAI
        ({"completion_tokens": 10, "total_tokens": 57, "completion_tokens_details": {"reasoning_tokens": 40}}, 50, 40),  # xAI
        ({"completion_tokens": 10, "total_tokens": 57}, 50, 40),  # Gemini
        ({"completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 40}}, 50, 40),
        ({"completion_tokens": 50, "total_tokens": 57, "completion_tokens_details": None}, 50, None),
    ],
)
def test_reasoning_tokens_are_counted_and_paid_for(usage, completion, reasoning):
    with FakeOpenAI(Reply("a", usage={"prompt_tokens": 7, **usage})) as server:
        asking = client(server)
        ask(asking, model=MODEL | {"model": "openai/gpt-4o-mini"})
    used = asking.usage.to_json()
    assert (used["completion_tokens"], used.get("reasoning_tokens")) == (completion, reasoning)
    assert used["cost"] == pytest.approx((7 * 0.15 + completion * 0.60) / 1e6)


@pytest.mark.parametrize("model", ["hosted_vllm/tiny", "xai/grok-3-mini"])
def test_it_is_the_same_for_providers_that_litellm_calls(model):
    """Those that leave reasoning out of their completion tokens among them."""
    model = MODEL | {"model": model, "chat_template_kwargs": {"enable_thinking": False}}
    usage = {"completion_tokens": 10, "total_tokens": 57, "completion_tokens_details": {"reasoning_tokens": 40}}
    reasoned = Reply(f"<think>a</think>{SCORES}", reasoning={"reasoning_content": "{}"}, usage={"prompt_tokens": 7, **usage})
    empty = Reply("", reasoning={"reasoning_content": SCORES}, finish_reason="length")
    with FakeOpenAI(reasoned, Reply(SCORES, finish_reason="length"), empty) as server:
        asking = client(server)
        assert ask(asking, parse_judge, model)["E"] == 3
        with pytest.raises(RefusedError, match=r"wrote its reasoning and no answer: raise roles\.judge\.max_tokens"):
            ask(asking, parse_judge, model, seed=6)
    used = asking.usage.to_json()
    assert (used["reasoning_tokens"], used["completion_tokens"], used["cut"]) == (40, 50 + 3 * 3, {"judge": 3})
    assert {str(body["chat_template_kwargs"]) for body in server.requests} == {"{'enable_thinking': False}"}


def test_an_interrupted_run_goes_on_with_what_was_cut(tmp_path):
    """The journal keeps replies as they were written: what is used of them, and how much room comes next, follows from it."""
    room = {"trim": trim_utterance, "more_room": True}

    def asked(server, max_attempts=3):
        with Journal(tmp_path, ["d"]) as opened:
            asking = Client(
                max_concurrency=1, timeout=5, max_attempts=max_attempts, max_backoff=0, api_base=server.api_base, journal=opened
            )
            try:
                return asyncio.run(within(asking, asking.ask(replace(question(), **room))))
            except RefusedError:
                return None

    with FakeOpenAI(HALF, Reply("It is", finish_reason="length")) as server:
        assert asked(server, max_attempts=1) is None
        assert [body["max_tokens"] for body in server.requests] == [17, 34]
    with FakeOpenAI(Reply("<think>So.</think>It is hard. I kn", finish_reason="length")) as server:
        assert asked(server) == "It is hard."
        assert [body["max_tokens"] for body in server.requests] == [34]
        assert asked(server) == "It is hard." and len(server.requests) == 1
    last = journal(tmp_path)[-1]
    assert (last["reply"], last["cut"], last["trimmed"]) == ("<think>So.</think>It is hard. I kn", True, True)


def thinking(server):
    """A server that answers as `server` does, with reasoning before each answer; with the room that a role has first, it is cut."""
    (answer,) = server.replies
    first_room = {}

    def reply(body):
        whole = answer(body).text
        room = first_room.setdefault(body["model"], body["max_tokens"])
        if body["model"] in ("seeker", "supporter") and body["max_tokens"] == room:
            return Reply(f"<think>Well. {whole[:5]}", finish_reason="length")
        return Reply(f"<think>{whole} Or not?</think>\n\n{whole}")

    return FakeOpenAI(reply)


def test_a_search_by_reasoning_models_grows_the_same_trees(tmp_path):
    """Every utterance is cut first: the trees are those of models that do not reason, and the summary counts by role."""
    with answering() as server:
        search(tmp_path / "plain", server.api_base, dialogues=1)
    with thinking(answering()) as server:
        summary = search(tmp_path / "thinking", server.api_base, dialogues=1)
    assert trees(tmp_path / "plain") == trees(tmp_path / "thinking") != {}
    cut = summary["usage"]["cut"]
    assert set(cut) == {"seeker", "supporter"} and "trimmed" not in summary["usage"]
    assert json.loads((tmp_path / "thinking" / "search.json").read_text())["usage"]["cut"] == cut
    plain, with_thoughts = (
        json.loads((tmp_path / name / "search.json").read_text())["usage"]["calls"] for name in ("plain", "thinking")
    )
    assert {role: with_thoughts[role] - plain[role] for role in cut} == cut == {role: plain[role] for role in cut}
    assert all(re.match("<think>", call["reply"]) for call in journal(tmp_path / "thinking"))
