"""A missing reply is never scored as a wrong one: every stage stops with the server's message, keeps its answers and continues later."""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from analysis.test_toxicity import rated
from fakes import FakeOpenAI, Reply, failure
from generation.test_served import API, DIALOGUES, echo, served
from hydra.utils import instantiate
from judging.examples import sample_of, settings
from loopback import FAULTS, OF_ACCOUNT, REPLIES, answering, search, trees
from omegaconf import DictConfig, OmegaConf
from project import composed, run_py
from refusals import UNPROCESSABLE

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json
from cso_lab.core.strategies import EXTES
from cso_lab.judging.study import Study
from cso_lab.llm.errors import ServiceError
from cso_lab.preferences.generate_negatives import generate_negatives
from cso_lab.preferences.random import ReplyRequest

PASSING = {name: fault for name, fault in FAULTS.items() if name not in (*REPLIES, "hanging")}
SAYS = {"429": "429: no", "500": "500: no", "cut": "connection failed", "no choice": "not a chat completion"}
ANSWERED = 3
"""Questions that are answered before the server fails."""


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def in_a_cell(folder: Path, server: FakeOpenAI) -> object:
    result = served(folder, server, "generation.client.max_attempts=2", "generation.client.max_concurrency=1")
    (folder / "predictions.jsonl").unlink()
    return result


def in_a_search(folder: Path, server: FakeOpenAI) -> object:
    assert search(folder, server.api_base, "roles.max_attempts=2", "roles.max_concurrency=1")["set_aside"] == {}
    return trees(folder)


def by_judges(folder: Path, server: FakeOpenAI) -> object:
    limits = judging_settings()
    with_server = limits | {"client": limits["client"] | {"api_base": server.api_base}}
    Study.begin(folder, sample_of(3)).judge(with_server)
    return read_json(folder / "judging.json")


def for_toxicity(folder: Path, server: FakeOpenAI, texts: int = 5, *overrides: str) -> object:
    cfg = config("toxicity=judge", "toxicity.model=openai/x", *overrides).copy()
    cfg.toxicity.client.api_base = server.api_base
    return instantiate(cfg.toxicity.scorer, _convert_="all").score([f"text {number}" for number in range(texts)], folder)


def for_fresh_replies(folder: Path, server: FakeOpenAI) -> object:
    roles = OmegaConf.to_container(config("roles=openai").roles, resolve=True) | {"api_base": server.api_base}
    wanted = [ReplyRequest("d", "", "", DIALOGUES[0].turns[:1], name) for name in EXTES.names[:5]]
    return generate_negatives(wanted, roles, EXTES, 0, folder)


@cache
def config(*overrides: str) -> DictConfig:
    """The configuration with two attempts and one call at a time, before `overrides`."""
    limits = ("max_attempts=2", "max_concurrency=1", "max_backoff=0.02")
    return composed(*(f"{client}.{limit}" for client in ("roles", "toxicity.client") for limit in limits), *overrides)


@cache
def judging_settings() -> dict:
    return settings("judges=[openai/one]", "client.max_attempts=2", "client.max_concurrency=1", "client.max_backoff=0.02")


ASKERS: dict[Callable, Callable] = {
    in_a_cell: echo,
    in_a_search: answering().replies[0],
    by_judges: lambda body: Reply('{"empathy": "A", "strategy": "tie"}'),
    for_toxicity: lambda body: Reply(rated(INSULT=3)),
    for_fresh_replies: lambda body: Reply(f"I hear you. {len(body['messages'][1]['content'])}"),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """By stage, (its result where nothing fails, the number of requests that takes)."""

    @cache
    def reference(asker: Callable) -> tuple[object, int]:
        with FakeOpenAI(ASKERS[asker]) as server:
            return asker(tmp_path_factory.mktemp("undisturbed"), server), len(server.requests)

    return reference


def stopped_and_continued(asker: Callable, fault: Reply, folder: Path, undisturbed: Callable) -> tuple[UserError, int]:
    """Returns (the error it stops with once the server fails, how many requests failed). The next run asks only the rest."""
    answer, (expected, needed), left = ASKERS[asker], undisturbed(asker), ANSWERED

    def failing(body: dict) -> Reply:
        nonlocal left
        left -= 1
        return answer(body) if left >= 0 else fault

    with FakeOpenAI(failing) as server:
        with pytest.raises(UserError) as stopped:
            asker(folder, server)
        met = len(server.requests) - ANSWERED
        server.replies = [answer]
        assert asker(folder, server) == expected
        assert len(server.requests) - ANSWERED - met == needed - ANSWERED
    assert stopped.value.exit_code and "\n" not in str(stopped.value)
    return stopped.value, met


def both(faults: dict[str, Reply], quick: tuple[str, ...]) -> list:
    """Every asker with every fault; the quick suite has the API cell with all of them, the others with some."""
    return [
        pytest.param(
            asker, fault, id=f"{asker.__name__}-{fault}", marks=() if asker is in_a_cell or fault in quick else pytest.mark.long
        )
        for asker in ASKERS
        for fault in faults
    ]


@pytest.mark.parametrize(("asker", "fault"), both(PASSING, ("error under 200",)))
def test_what_brings_no_reply_stops_after_the_attempts_and_is_asked_again(asker, fault, undisturbed, tmp_path):
    stopped, met = stopped_and_continued(asker, PASSING[fault], tmp_path, undisturbed)
    assert SAYS.get(fault, "come back later") in str(stopped) and "the same command" in str(stopped)
    assert 2 <= met <= 40


@pytest.mark.parametrize(("asker", "fault"), both(OF_ACCOUNT, ("402",)))
def test_what_every_question_would_meet_stops_at_once(asker, fault, undisturbed, tmp_path):
    stopped, met = stopped_and_continued(asker, OF_ACCOUNT[fault], tmp_path, undisturbed)
    assert "come back" in str(stopped) and "the same command goes on" in str(stopped)
    assert met == 1


@pytest.mark.parametrize("asker", ASKERS)
def test_a_server_that_is_gone_stops_and_is_asked_again(asker, tmp_path):
    with FakeOpenAI(ASKERS[asker]) as server:
        pass
    with pytest.raises(UserError, match="cannot reach http://127.0.0.1.*the same command"):
        asker(tmp_path, server)
    with FakeOpenAI(ASKERS[asker]) as server:
        assert asker(tmp_path, server)


def test_a_cell_whose_server_fails_leaves_no_numbers_and_says_why(tmp_path):
    with FakeOpenAI(OF_ACCOUNT["402"]) as server:
        with pytest.raises(ServiceError, match="openai/tiny as supporter: 402: out of money.*0 of 5 questions are answered"):
            served(tmp_path, server)
    assert not (tmp_path / "predictions.jsonl").exists()
    assert "402: out of money" in json.loads((tmp_path / "usage.json").read_text())["stopped"]


@pytest.mark.parametrize(
    ("texts", "message"), [(9, "3 questions in a row got no answer"), (400, "no reply to any question for")]
)
def test_many_questions_are_not_all_tried_again_and_again_on_a_server_that_is_down(texts, message, tmp_path):
    with FakeOpenAI(failure(503, "down for the day")) as server:
        with pytest.raises(UserError, match=f"{message}.*503: down for the day"):
            for_toxicity(tmp_path, server, texts, "toxicity.client.max_attempts=6", "toxicity.client.max_concurrency=32")
    assert len(server.requests) < texts * 6


def test_nonsense_and_faults_together_are_no_refusal_until_the_model_was_asked_often_enough(tmp_path):
    with FakeOpenAI(*[Reply(""), failure(500), Reply(""), failure(500)] * 2) as server:
        three = "toxicity.client.max_attempts=3"
        with pytest.raises(UserError, match="1 of 1 questions got no answer"):
            for_toxicity(tmp_path, server, 1, three)
        assert for_toxicity(tmp_path, server, 1, three) == [None]  # now three of its replies were empty
        assert len(server.requests) == 6


def test_a_search_whose_server_fails_one_question_alone_sets_its_dialogue_aside(tmp_path):
    answer = answering().replies[0]
    opening = []

    def reply(body: dict) -> Reply:
        opening.append(body["messages"][1]["content"])
        return failure(400, "context too long") if opening[0][-60:] in body["messages"][1]["content"] else answer(body)

    with FakeOpenAI(reply) as server:
        summary = search(tmp_path, server.api_base, "roles.max_attempts=2")
    assert len(summary["set_aside"]) == summary["trees"] == 1 and summary["stopped"] is None
    assert "request refused: 400: context too long" in next(iter(summary["set_aside"].values()))


@pytest.mark.parametrize("asker", [in_a_cell, by_judges, for_toxicity])
def test_a_question_that_the_server_does_not_take_is_left_out_alone(asker, tmp_path):
    answer, questions = ASKERS[asker], []

    def reply(body: dict) -> Reply:
        questions.append(last := body["messages"][-1]["content"])
        return UNPROCESSABLE if last == questions[0] else answer(body)

    with FakeOpenAI(reply) as server:
        assert asker(tmp_path, server)
    unanswered = questions.count(questions[0])
    assert 1 <= unanswered < len(questions)


@pytest.mark.parametrize(
    "asker", [pytest.param(asker, marks=() if asker is in_a_cell else pytest.mark.long) for asker in ASKERS]
)
def test_a_server_that_begins_to_take_no_question_stops_the_stage(asker, undisturbed, tmp_path):
    stopped, met = stopped_and_continued(asker, UNPROCESSABLE, tmp_path, undisturbed)
    assert "Conversation roles must alternate" in str(stopped) and "the same command" in str(stopped)
    assert met <= 8


def test_a_stopped_search_says_so_in_its_summary(tmp_path):
    with FakeOpenAI(OF_ACCOUNT["402"]) as server:
        with pytest.raises(ServiceError, match="402: out of money.*0 of 2 dialogues are finished"):
            search(tmp_path, server.api_base)
    assert "402: out of money" in json.loads((tmp_path / "search.json").read_text())["stopped"]


@pytest.mark.long
def test_the_command_whose_credit_runs_out_ends_without_numbers_and_goes_on_when_there_is_some(tmp_path):
    left = [25]

    def reply(body: dict) -> Reply:
        left[0] -= 1
        return echo(body) if left[0] >= 0 else OF_ACCOUNT["402"]

    env = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    with FakeOpenAI(reply) as server:
        line = [
            *API,
            f"generation.client.api_base={server.api_base}",
            f"shared_dir={tmp_path}/shared",
            f"hydra.run.dir={tmp_path}/run",
        ]
        stopped = run_py(*line, "generation.max_turns=30", env=env)
        assert stopped.returncode == 2, stopped.stderr
        last = stopped.stderr.splitlines()[-1]
        assert last.startswith("error: ") and "402: out of money" in last and "25 of 30 questions are answered and kept" in last
        assert not (tmp_path / "run" / "metrics.json").exists()
        made, left[0] = len(server.requests), 1000
        done = run_py(*line, "generation.max_turns=30", env=env)
        assert done.returncode == 0, done.stderr
        assert len(server.requests) - made == 5
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["n"], metrics["unparsed"]) == (30, 0)
