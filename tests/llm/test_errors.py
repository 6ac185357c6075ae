"""Searches with failing calls give the same trees; rate limits and the pauses that a provider asks for are respected."""

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache

import pytest
from fakes import FakeOpenAI, Reply, failure
from llm.test_client import DIALOGUE, HISTORY, MODEL, SECRET, ask, client, question, role_config, within
from loopback import FAULTS, answering, search, trees

from cso_lab.core.errors import UserError
from cso_lab.core.strategies import EXTES
from cso_lab.llm.client import Client
from cso_lab.llm.errors import RoleFailure, ServiceError, retry_after
from cso_lab.llm.prices import load_litellm
from cso_lab.llm.rate_limiter import RateLimiter
from cso_lab.roles.role_players import RolePlayers


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The trees of a search without faults, by whether the server's answers depend on the request's seed."""

    @cache
    def reference(seeded: bool = False) -> dict[str, bytes]:
        folder = tmp_path_factory.mktemp("undisturbed")
        with answering(seeded=seeded) as server:
            search(folder, server.api_base, dialogues=1)
        return trees(folder)

    return reference


@pytest.mark.parametrize("fault", [pytest.param(f, marks=pytest.mark.long if f == "hanging" else ()) for f in FAULTS])
def test_a_fifth_of_all_calls_failing_changes_no_tree(fault, undisturbed, tmp_path):
    seeded = fault in ("429", "500", "hanging", "cut")  # these are repeated as they were, with the same seed
    with answering(0.2, (fault,), seeded) as server:
        summary = search(tmp_path, server.api_base, "roles.timeout=0.3", "roles.max_concurrency=16", dialogues=1)
    assert summary["set_aside"] == {}
    assert summary["usage"]["failed_attempts"] >= 5
    assert trees(tmp_path) == undisturbed(seeded)


def test_what_stays_unanswered_is_set_aside_and_taken_up_again(undisturbed, tmp_path):
    broken = True
    first = next(iter(undisturbed()))
    opening = json.loads(undisturbed()[first])["nodes"][0]["seeker"]
    with answering() as server:
        answer = server.replies[0]
        server.replies = [
            lambda body: failure(503, "too busy") if broken and opening in body["messages"][1]["content"] else answer(body)
        ]
        summary = search(tmp_path, server.api_base, "roles.max_attempts=2")
        assert list(summary["set_aside"]) == [first.removesuffix(".json")]
        assert "no usable answer in 2 attempts, last: 503: too busy" in next(iter(summary["set_aside"].values()))
        assert summary["trees"] == 1 and summary["usage"]["failed_attempts"] >= 2
        broken = False
        assert search(tmp_path, server.api_base, "roles.max_attempts=2")["set_aside"] == {}
    assert trees(tmp_path).items() >= undisturbed().items()


# pauses a provider asks for


def test_retry_after_pauses_every_question_to_that_provider():
    with FakeOpenAI(failure(429, Retry_After="1"), Reply("a")) as server:
        times = []
        answer = server.replies[1]
        server.replies[1] = lambda body: (times.append(time.monotonic()), answer)[1]
        asking = client(server, max_concurrency=1)
        began = time.monotonic()

        async def both():
            return await asyncio.gather(asking.ask(question(1)), asking.ask(question(2)))

        assert asyncio.run(within(asking, both())) == ["a", "a"]
    assert len(times) == 2 and min(times) - began >= 1.0


def test_a_retry_after_of_a_day_stops_the_run():
    with FakeOpenAI(failure(429, "daily limit", Retry_After="86400")) as server:
        with pytest.raises(ServiceError, match="openai/tiny as judge: told to wait 86400 s: 429: daily limit"):
            ask(client(server))
    assert len(server.requests) == 1


def test_an_exceeded_quota_is_a_user_error():
    reply = Reply(status=429, body={"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})
    with FakeOpenAI(reply) as server:
        with pytest.raises(UserError, match="openai/tiny as judge: 429: You exceeded your quota"):
            ask(client(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("", None), ("soon", None), ("nan", None), ("3", 3), ("2.5", 2.5), ("-4", 0)],
)
def test_retry_after_as_a_number(header, seconds):
    assert retry_after(header) == seconds


def test_retry_after_as_a_date():
    now = datetime.now(UTC)
    assert retry_after(format_datetime(now + timedelta(hours=1), usegmt=True)) == pytest.approx(3600, abs=60)
    assert retry_after(format_datetime(now - timedelta(hours=1), usegmt=True)) == 0


# limits a minute


def start_times(calls: list[int], requests: float | None = None, tokens: float | None = None) -> list[float]:
    """When each call, of so many tokens, may be made: in seconds from the start, all of them waiting at once."""

    async def all_of_them():
        limiter, began = RateLimiter(requests, tokens), time.monotonic()

        async def one(number: int):
            await limiter.acquire(number)
            return time.monotonic() - began

        return await asyncio.gather(*map(one, calls))

    return asyncio.run(all_of_them())


def test_requests_are_spaced_evenly():
    assert start_times([1] * 4, requests=600) == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=0.05)


def test_tokens_are_spaced_by_their_number():
    assert start_times([100, 300, 50, 50], tokens=60_000) == pytest.approx([0.0, 0.1, 0.4, 0.45], abs=0.05)


def test_the_tighter_limit_counts():
    assert start_times([100, 100], requests=600, tokens=30_000)[1] == pytest.approx(0.2, abs=0.05)
    assert start_times([100, 100]) == pytest.approx([0.0, 0.0], abs=0.05)


def test_the_client_keeps_the_limit():
    with FakeOpenAI(Reply("a")) as server:
        asking = client(server, requests_per_minute=600)
        began = time.monotonic()

        async def many():
            await asyncio.gather(*(asking.ask(question(seed)) for seed in range(5)))

        asyncio.run(within(asking, many()))
    assert time.monotonic() - began >= 0.4


# keys


def test_a_key_of_the_environment_is_not_sent_to_an_address_of_ones_own(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with FakeOpenAI(Reply("a")) as server:
        ask(client(server))
        ask(client(server), model=MODEL | {"model": "hosted_vllm/tiny"})
        ask(client(server, api_key_env="OPENAI_API_KEY"))
    assert [headers["authorization"] for headers in server.headers] == ["Bearer none", "Bearer none", f"Bearer {SECRET}"]


def test_no_file_holds_a_key_even_when_the_server_repeats_it(monkeypatch, tmp_path):
    monkeypatch.setenv("MY_SERVER_PASS", SECRET)
    with answering() as server:
        answer, number = server.replies[0], Counter()

        def echo_key(body):
            number["asked"] += 1
            if number["asked"] % 7 == 0:
                return failure(500, f"wrong {SECRET}")
            if body["model"] == "supporter":
                return Reply(f"Your key is {SECRET}, dear. {number['asked']}")
            return answer(body)

        server.replies = [echo_key]
        search(tmp_path, server.api_base, "roles.api_key_env=MY_SERVER_PASS", dialogues=1)
    files = {path.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert "$MY_SERVER_PASS" in files["calls.jsonl"] and len(files) >= 3
    assert not [name for name, text in files.items() if SECRET in text]


# callers


def test_slots_are_idle_while_nobody_waits_for_one():
    with FakeOpenAI(Reply("a", delay=0.1)) as server:
        asking = client(server, max_concurrency=3)

        async def watch():
            role_players = RolePlayers(role_config(), asking, EXTES, 0)
            idle, questions = [role_players.idle], []
            for number in range(5):
                questions.append(asyncio.ensure_future(role_players.seeker(DIALOGUE, HISTORY[:2], str(number))))
                await asyncio.sleep(0)
                idle.append(role_players.idle)
            await asyncio.gather(*questions)
            return [*idle, role_players.idle]

        assert asyncio.run(within(asking, watch())) == [3, 2, 1, 0, 0, 0, 3]


def test_a_question_without_waiters_is_not_asked_and_a_call_in_flight_is_kept():
    with FakeOpenAI(Reply("a", delay=0.1)) as server:
        asking = client(server, max_concurrency=1)

        async def leave():
            role_players = RolePlayers(role_config(), asking, EXTES, 0)
            first, second = (
                asyncio.ensure_future(role_players.seeker(DIALOGUE, HISTORY[:2], sample_key)) for sample_key in "12"
            )
            await asyncio.sleep(0.05)  # the first one is under way, the second waits
            first.cancel(), second.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            assert first.cancelled() and second.cancelled()
            return await role_players.seeker(DIALOGUE, HISTORY[:2], "1")

        assert asyncio.run(within(asking, leave())).text == "a"
    assert len(server.requests) == 1


def test_a_cancelled_waiter_does_not_cancel_the_answer_for_others():
    with FakeOpenAI(Reply("a", delay=0.1)) as server:
        asking = client(server)

        async def leave():
            role_players = RolePlayers(role_config(), asking, EXTES, 0)
            first, second = (asyncio.ensure_future(role_players.seeker(DIALOGUE, HISTORY[:2], "")) for _ in range(2))
            await asyncio.sleep(0.02)
            first.cancel()
            return await second

        assert asyncio.run(within(asking, leave())).text == "a"
    assert len(server.requests) == 1


def test_a_provider_of_litellms_that_hangs_ends_at_the_timeout(monkeypatch):
    litellm = load_litellm()

    class Hanging(litellm.CustomLLM):
        async def acompletion(self, *_, **__):
            await asyncio.sleep(60)

    providers = [*litellm.custom_provider_map, {"provider": "hanging", "custom_handler": Hanging()}]
    monkeypatch.setattr(litellm, "custom_provider_map", providers)
    litellm.utils.custom_llm_setup()
    asking = Client(max_concurrency=1, timeout=0.2, max_attempts=2, max_backoff=0)
    with pytest.raises(RoleFailure, match="2 attempts, last: no answer within 0.2 s"):
        ask(asking, model=MODEL | {"model": "hanging/judge"})
