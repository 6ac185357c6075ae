"""The client and the role players against a real HTTP server on loopback that speaks OpenAI's protocol."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
import yaml
from fakes import FakeOpenAI, Reply, failure

from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, SeekerReply, Turn
from cso_lab.core.strategies import EXTES
from cso_lab.llm.client import Client, Question
from cso_lab.llm.errors import ParseError, RoleFailure
from cso_lab.roles.parsing import parse_judge
from cso_lab.roles.role_players import RolePlayers

MODEL = {"model": "openai/tiny", "temperature": 0.3, "max_tokens": 17}
CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
SECRET = "sk-do-not-print-me-0123456789"
SCORES = '{"empathy": 3, "information": 2, "humanoid": 4, "strategy": 1}'


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def client(server: FakeOpenAI | None = None, **changes) -> Client:
    settings = dict(max_concurrency=4, timeout=5, max_attempts=3, max_backoff=0, api_base=server and server.api_base)
    return Client(**settings | changes)


def question(seed=5, parse=str, model=MODEL) -> Question:
    return Question(f"question {seed}", "d", "judge", model, CHAT, seed, parse)


async def within(asking: Client, work):
    async with asking:
        return await work


def ask(asking: Client, parse=str, model=MODEL, seed=5):
    return asyncio.run(within(asking, asking.ask(question(seed, parse, model))))


def test_what_is_sent():
    with FakeOpenAI(Reply("hello")) as server:
        assert ask(client(server)) == "hello"
    assert server.paths == ["/v1/chat/completions"]
    assert server.requests == [{"model": "tiny", "messages": CHAT, "temperature": 0.3, "max_tokens": 17, "seed": 5}]


def test_what_was_used_is_counted():
    with FakeOpenAI(Reply("a"), failure(500), Reply("b"), Reply("c", usage=None)) as server:
        asking = client(server)
        ask(asking), ask(asking), ask(asking)
    assert asking.usage.to_json() == {
        "calls": {"judge": 4},
        "failed_attempts": 1,
        "unparsed": {},
        "prompt_tokens": 14,  # 7 and 7, and of the third the two characters that were sent make no token
        "completion_tokens": 6,
        "cost": 0.0,
        "unpriced": 3,
        "unmetered": 1,
    }


def test_known_prices_are_summed():
    with FakeOpenAI(Reply("a")) as server:
        asking = client(server)
        ask(asking, model=MODEL | {"model": "openai/gpt-4o-mini"})
    # 7 tokens at $0.15 and 3 at $0.60 a million
    assert asking.usage.cost == pytest.approx((7 * 0.15 + 3 * 0.60) / 1e6)
    assert asking.usage.unpriced == 0


@pytest.mark.parametrize("bound", [1, 3])
def test_no_more_than_max_concurrency_at_once(bound):
    with FakeOpenAI(Reply("a", delay=0.05)) as server:
        asking = client(server, max_concurrency=bound)

        async def many():
            await asyncio.gather(*(asking.ask(question(seed)) for seed in range(9)))

        asyncio.run(within(asking, many()))
    assert len(server.requests) == 9
    assert server.most == bound


# retries


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_retryable_errors_make_exactly_as_many_requests_as_attempts(status):
    with FakeOpenAI(failure(status)) as server:
        asking = client(server)
        with pytest.raises(RoleFailure, match="judge: no usable answer in 3 attempts"):
            ask(asking)
    assert len(server.requests) == 3
    assert asking.usage.failed_attempts == asking.usage.calls["judge"] == 3


def test_unparsable_replies_and_failed_calls_count_together():
    with FakeOpenAI(Reply("what?"), failure(429), Reply(""), failure(500), Reply(SCORES)) as server:
        assert ask(client(server, max_attempts=5), parse_judge) == {"E": 3, "I": 2, "H": 4, "S": 1}
    assert len(server.requests) == 5
    with FakeOpenAI(Reply("what?"), failure(429), Reply(""), failure(500), Reply(SCORES)) as server:
        with pytest.raises(RoleFailure, match="4 attempts"):
            ask(client(server, max_attempts=4), parse_judge)
    assert len(server.requests) == 4


def test_the_seed_changes_after_an_unparsable_reply_and_not_after_a_failed_call():
    with FakeOpenAI(Reply("what?"), failure(500), Reply("what?"), failure(429), Reply(SCORES)) as server:
        ask(client(server, max_attempts=5), parse_judge, seed=40)
    assert [request["seed"] for request in server.requests] == [40, 41, 41, 42, 42]


@pytest.mark.parametrize("reply", [Reply(None), Reply(""), Reply(body={"choices": []}), Reply(body={}), Reply(body="<html>")])
def test_answers_without_words_are_asked_again(reply):
    with FakeOpenAI(reply, Reply(SCORES)) as server:
        assert ask(client(server), parse_judge)["H"] == 4
    assert len(server.requests) == 2


def test_a_hanging_call_times_out():
    with FakeOpenAI(Reply("late", delay=2), Reply("in time")) as server:
        assert ask(client(server, timeout=0.3)) == "in time"
    assert len(server.requests) == 2


def test_a_server_that_always_hangs():
    with FakeOpenAI(Reply("late", delay=2)) as server:
        with pytest.raises(RoleFailure, match="2 attempts"):
            ask(client(server, timeout=0.2, max_attempts=2))
    assert len(server.requests) == 2


def test_no_server_there():
    with FakeOpenAI(Reply("a")) as server:
        asking = client(server, max_attempts=2)
    with pytest.raises(RoleFailure, match="2 attempts"):
        ask(asking)


def test_waiting_for_a_slot_is_not_part_of_the_timeout():
    with FakeOpenAI(Reply("a", delay=0.15)) as server:
        asking = client(server, max_concurrency=1, timeout=0.4, max_attempts=1)

        async def many():
            return await asyncio.gather(*(asking.ask(question(seed)) for seed in range(5)))

        assert asyncio.run(within(asking, many())) == ["a"] * 5


def test_other_errors_of_the_parser_are_raised():
    def parse(reply):
        raise KeyError(reply)

    with FakeOpenAI(Reply("a")) as server:
        with pytest.raises(KeyError):
            ask(client(server), parse)
    assert len(server.requests) == 1


# errors without a retry


@pytest.mark.parametrize("status", [401, 403, 404])
def test_errors_that_every_request_would_get_are_user_errors(status):
    with FakeOpenAI(failure(status, "nothing for you")) as server:
        with pytest.raises(UserError, match="openai/tiny as judge: .*nothing for you"):
            ask(client(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_question_fails_at_once(status):
    with FakeOpenAI(failure(status, "context too long")) as server:
        with pytest.raises(RoleFailure, match="judge: request refused"):
            ask(client(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("openai/gpt-4o-mini", "needs OPENAI_API_KEY"),
        ("tiny", "roles.judge.model=tiny: names no provider"),
        ("simulated/nobody", "valid: seeker, supporter, strategist, judge"),
    ],
)
def test_models_that_cannot_be_called(model, message):
    with pytest.raises(UserError, match=message):
        ask(client(), model=MODEL | {"model": model})


# keys


def test_the_named_key_is_sent_and_never_printed(monkeypatch, capsys, caplog):
    monkeypatch.setenv("MY_SERVER_KEY", SECRET)
    with FakeOpenAI(Reply("a"), failure(500, f"key {SECRET}"), failure(401, f"wrong key {SECRET}")) as server:
        asking = client(server, api_key_env="MY_SERVER_KEY")
        ask(asking)
        with pytest.raises(UserError) as refused:
            ask(asking)
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {SECRET}"}
    with FakeOpenAI(failure(500, f"wrong key {SECRET}")) as server:
        with pytest.raises(RoleFailure) as failed:
            ask(client(server, api_key_env="MY_SERVER_KEY"))
    assert "wrong key $MY_SERVER_KEY" in str(refused.value) and "wrong key $MY_SERVER_KEY" in str(failed.value)
    assert refused.value.__suppress_context__ and failed.value.__suppress_context__
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err + caplog.text + str(asking.usage.to_json())


def test_a_named_key_that_is_not_set():
    with pytest.raises(UserError, match="roles.api_key_env names MY_SERVER_KEY"):
        client(api_key_env="MY_SERVER_KEY")


def test_a_server_of_ones_own_needs_no_key():
    with FakeOpenAI(Reply("a")) as server:
        assert ask(client(server)) == "a"
    assert server.headers[0]["authorization"] == "Bearer none"


# the role players

DIALOGUE = Dialogue("d", "Job loss", "I {lost} my job", ())
HISTORY = (Turn(SEEKER, "I lost it."), Turn(SUPPORTER, "That hurts.", "Empathetic Statements"), Turn(SEEKER, "Yes."))


def role_config(**changes) -> dict:
    roles = Path(__file__).parents[2] / "conf" / "roles"
    config = {
        role: yaml.safe_load((roles / role / "default.yaml").read_text()) | {"model": f"openai/{role}"}
        for role in ("seeker", "supporter", "strategist", "judge")
    }
    for role, values in changes.items():
        config[role] |= values
    return config


def playing(server, scene, seed=0, config=None):
    """Returns what the coroutine function `scene` returns for role players over the server."""
    asking = client(server)
    return asyncio.run(within(asking, scene(RolePlayers(config or role_config(), asking, EXTES, seed))))


def test_the_four_questions():
    answers = {
        "seeker": "Thanks. </end/>",
        "supporter": "(Affirmation) Well done.",
        "strategist": '{"Affirmation": 7}',
        "judge": SCORES,
    }
    with FakeOpenAI(lambda request: Reply(answers[request["model"]])) as server:

        async def all_four(players):
            return (
                await players.seeker(DIALOGUE, HISTORY[:2], ""),
                await players.supporter(DIALOGUE, HISTORY, "Affirmation", ""),
                await players.strategist(DIALOGUE, HISTORY, ""),
                await players.judge(DIALOGUE, HISTORY[:2], ""),
            )

        assert playing(server, all_four) == (
            SeekerReply("Thanks.", True),
            "Well done.",
            {"Affirmation": 7},
            {"E": 3, "I": 2, "H": 4, "S": 1},
        )
    requests = {request["model"]: request for request in server.requests}
    fixed = {role: requests[role]["messages"][0]["content"] for role in requests}
    query = {role: requests[role]["messages"][1]["content"] for role in requests}
    assert "Your situation: I {lost} my job" in query["seeker"] and "Job loss" in query["seeker"]
    assert query["seeker"].endswith("Seeker: I lost it.\nSupporter: That hurts.")
    assert f"Affirmation ({EXTES.descriptions['Affirmation']})" in query["supporter"]
    assert query["strategist"].endswith("Supporter (Empathetic Statements): That hurts.\nSeeker: Yes.")
    assert query["judge"].endswith("Supporter (Empathetic Statements): That hurts.")
    assert all(name in fixed["strategist"] for name in EXTES.names)
    assert {role: (body["temperature"], body["max_tokens"]) for role, body in requests.items()} == {
        role: (values["temperature"], values["max_tokens"]) for role, values in role_config().items()
    }


def test_a_question_has_one_answer_per_sample_key():
    with FakeOpenAI(Reply("a", delay=0.05)) as server:

        async def twice(players):
            await asyncio.gather(*(players.seeker(DIALOGUE, HISTORY[:2], sample_key) for sample_key in ("", "", "B", "")))
            await players.seeker(DIALOGUE, HISTORY[:2], "")
            players.forget(DIALOGUE)
            await players.seeker(DIALOGUE, HISTORY[:2], "")

        playing(server, twice)
    assert len(server.requests) == 3
    # forgotten, the question is the same again, and so is its seed
    assert sorted(Counter(request["seed"] for request in server.requests).values()) == [1, 2]


def test_placeholders_in_the_fixed_part_distinguish_questions():
    config = role_config(supporter={"system": "Reply as: {strategy}.", "query": "{dialogue}"})
    with FakeOpenAI(lambda request: Reply(request["messages"][0]["content"])) as server:

        async def both(players):
            return [await players.supporter(DIALOGUE, HISTORY, name, "") for name in ("Affirmation", "Share Information")]

        assert playing(server, both, config=config) == ["Reply as: Affirmation.", "Reply as: Share Information."]


def test_seeds_follow_from_the_question_and_the_searchs_seed():
    def seeds(seed):
        with FakeOpenAI(Reply("a")) as server:

            async def play(players):
                for sample_key in ("", "B"):
                    await players.seeker(DIALOGUE, HISTORY[:2], sample_key)

            playing(server, play, seed)
        return [request["seed"] for request in server.requests]

    assert seeds(0) == seeds(0)
    assert len({*seeds(0), *seeds(1)}) == 4
    assert all(0 <= seed < 2**31 for seed in seeds(0))


def test_an_unknown_placeholder_is_named():
    with pytest.raises(UserError, match=r"roles\.judge\.system '\{strategy\}'.*valid: .*\{dialogue\}"):
        RolePlayers(role_config(judge={"system": "{strategy}"}), client(), EXTES, 0)


def test_a_parse_error_is_a_value_error():
    assert issubclass(ParseError, ValueError)
