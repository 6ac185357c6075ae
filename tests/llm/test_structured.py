"""Structured replies: JSON is asked for in the form that a server takes, whatever that is, and whenever it changes."""

import asyncio
import json
import random

import pytest
from analysis.test_toxicity import judged, rated
from fakes import FakeOpenAI, Reply, anthropic_message, failure
from judging.examples import sample_of
from judging.test_judging import judged_by, server
from llm.test_client import DIALOGUE, HISTORY, SCORES, client, role_config, within
from loopback import journal, search, trees

from cso_lab.core.strategies import EXTES
from cso_lab.judging.items import RATING
from cso_lab.llm.errors import RoleFailure
from cso_lab.llm.prices import structured_form
from cso_lab.llm.reply_form import FORMS
from cso_lab.roles.role_players import RolePlayers
from cso_lab.roles.simulated.provider import simulated_reply

SCORING = ("strategist", "judge")
AUTO = tuple(f"roles.{role}.structured=auto" for role in SCORING)
BOTH = ("json_schema", "json_object")
REFUSALS = {
    "400": failure(400, "response_format of this type is not supported"),
    "400, without a reason": failure(400, "bad request"),
    "404": failure(404, "no endpoint takes the parameter response_format"),
    "500": failure(500, "internal error"),
    "501": failure(501, "json_schema is not implemented"),
}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def form_of(body: dict) -> str:
    return body.get("response_format", {"type": "none"})["type"]


def careless(**forms) -> FakeOpenAI:
    """A server whose models answer as the simulated players do, but that write every third score out of range or as prose."""

    def reply(body: dict) -> Reply:
        text = simulated_reply(body["model"], body["messages"], 0)
        chance = random.Random(json.dumps([body["messages"], body["seed"]])).random()
        if body["model"] in SCORING and chance < 1 / 3:
            text = "That depends." if chance < 1 / 6 else json.dumps(dict.fromkeys(json.loads(text), 99))
        return Reply(text)

    return FakeOpenAI(reply, **forms)


def judging(fake: FakeOpenAI, structured: str = "auto", times: int = 1, **changes) -> list:
    """What the judge says of one turn, asked `times` times, one after another."""
    config = role_config(judge={"structured": structured}, strategist={"structured": "none"})

    async def ask(asking):
        players = RolePlayers(config, asking, EXTES, 0)
        return [await players.judge(DIALOGUE, HISTORY[:2], str(n)) for n in range(times)]

    asking = client(fake, max_attempts=6, **changes)
    return asyncio.run(within(asking, ask(asking)))


# the schemas


def test_strategist_and_judge_ask_for_names_order_and_ranges_and_the_others_for_nothing():
    replies = {"strategist": "{}", "judge": SCORES, "seeker": "Yes.", "supporter": "Well."}
    with FakeOpenAI(lambda body: Reply(replies[body["model"]]), forms=BOTH) as fake:
        config = role_config(strategist={"structured": "auto"}, judge={"structured": "auto"})

        async def ask(asking):
            players = RolePlayers(config, asking, EXTES, 0)
            await players.seeker(DIALOGUE, HISTORY[:2], "")
            await players.supporter(DIALOGUE, HISTORY, "Affirmation", "")
            await players.strategist(DIALOGUE, HISTORY, "")
            await players.judge(DIALOGUE, HISTORY[:2], "")

        asking = client(fake)
        asyncio.run(within(asking, ask(asking)))
    formats = {body["model"]: body.get("response_format") for body in fake.requests}
    assert formats["seeker"] is formats["supporter"] is None
    for role, names, highest in (
        ("strategist", list(EXTES.names), 10),
        ("judge", ["empathy", "information", "humanoid", "strategy"], 4),
    ):
        schema = formats[role]["json_schema"]["schema"]
        assert list(schema["properties"]) == schema["required"] == names and schema["additionalProperties"] is False
        assert list(schema["properties"].values()) == [{"type": "integer", "minimum": 0, "maximum": highest}] * len(names)


@pytest.mark.long
def test_pair_judges_raters_and_toxicity_judges_ask_for_a_schema(tmp_path):
    with server(lambda *_: "C") as fake:
        fake.forms = BOTH
        judged_by(fake, tmp_path / "pairs", None, "structured=auto")
        assert len(fake.requests) == 16 and len(fake.probes) == 2, "two judges, one question each about what it takes"
        values = fake.requests[0]["response_format"]["json_schema"]["schema"]["properties"]
        assert values == dict.fromkeys(("empathy", "strategy"), {"type": "string", "enum": ["A", "B", "tie"]})
    with FakeOpenAI(Reply('{"empathy": 9}'), forms=BOTH) as fake:
        judged_by(fake, tmp_path / "ratings", sample_of(4, ("empathy",), kind=RATING), "structured=auto")
        assert len(fake.requests) == 8
        values = fake.requests[0]["response_format"]["json_schema"]["schema"]["properties"]
        assert values == {"empathy": {"type": "integer", "minimum": 1, "maximum": 5}}
    with judged(Reply(rated(TOXICITY=101)), overrides=("toxicity.structured=auto",)) as (fake, judge):
        fake.forms = BOTH
        judge.score(["text"], tmp_path / "toxicity")
        assert len(fake.requests) == 1
        values = fake.requests[0]["response_format"]["json_schema"]["schema"]["properties"]
        assert values["THREAT"] == {"type": "integer", "minimum": 0, "maximum": 100} and len(values) == 6


# what a server takes


@pytest.mark.long
def test_with_a_schema_no_reply_is_asked_for_twice_and_without_they_are_counted_by_role(tmp_path):
    with careless(forms=BOTH) as fake:
        summary = search(tmp_path / "with", fake.api_base, *AUTO)
        assert summary["usage"]["unparsed"] == {} and summary["usage"]["failed_attempts"] == 0
        assert summary["usage"]["calls"]["format probe"] == len(fake.probes) == 2
        assert len({(body["model"], json.dumps(body["messages"]), body["seed"]) for body in fake.requests}) == len(
            fake.requests
        )
    with careless() as fake:
        summary = search(tmp_path / "without", fake.api_base, *AUTO)
        unparsed = summary["usage"]["unparsed"]
        assert set(unparsed) == set(SCORING) and min(unparsed.values()) > 5
        lines = [line for line in journal(tmp_path / "without") if "fault" in line and "reply" in line]
        assert sum(unparsed.values()) == len(lines)


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("forms", [("json_object",), ()])
def test_a_server_is_asked_once_and_gets_what_it_takes(refusal, forms, tmp_path, capsys):
    with FakeOpenAI(Reply(SCORES), forms=forms, refusal=REFUSALS[refusal]) as fake:
        assert judging(fake, times=3) == [{"E": 3, "I": 2, "H": 4, "S": 1}] * 3
    assert [form_of(body) for body in fake.requests] == [*forms, "none"][:1] * 3
    assert [form_of(body) for body in fake.probes][-1] == [*forms, "none"][0]
    assert "refused" not in capsys.readouterr().err


@pytest.mark.long
def test_what_a_server_takes_is_remembered_with_the_search_and_decides_no_question(tmp_path):
    with careless(forms=BOTH) as fake:
        search(tmp_path, fake.api_base, *AUTO, dialogues=1)
        first = trees(tmp_path)
        probes, requests = len(fake.probes), len(fake.requests)
        search(tmp_path, fake.api_base, *AUTO, dialogues=2)
        assert len(fake.probes) == probes, "the answer is in the journal"
        assert {form_of(body) for body in fake.requests[requests:] if body["model"] in SCORING} == {"json_schema"}
        requests = len(fake.requests)
        fake.forms = ()
        for tree in (tmp_path / "trees").iterdir():
            tree.unlink()
        for structured in ("auto", "none", "json_object"):
            search(tmp_path, fake.api_base, *(f"roles.{role}.structured={structured}" for role in SCORING))
        assert len(fake.requests) == requests, "a finished journal is not asked again, whatever is taken now"
        assert first.items() <= trees(tmp_path).items()


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_server_that_begins_to_refuse_falls_back_and_says_so_once(refusal, capsys):
    with FakeOpenAI(Reply(SCORES), forms=BOTH, refusal=REFUSALS[refusal]) as fake:

        def answer(body):
            if len(fake.requests) == 3:
                fake.forms = ("json_object",)
            if len(fake.requests) == 40:
                fake.forms = ()
            return Reply(SCORES)

        fake.replies = [answer]
        assert len(judging(fake, times=80)) == 80
    forms = [form_of(body) for body in fake.requests]
    assert forms[:3] == ["json_schema"] * 3 and forms[30:40] == ["json_object"] * 10 and forms[-10:] == ["none"] * 10
    if refusal not in ("500", "400, without a reason"):
        assert len(forms) == 82 and (forms.index("json_object"), forms.index("none")) == (4, 41)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "refused" in line]
    assert [line.partition("structured=")[2] for line in warnings] == ["json_object from here on", "none from here on"]


def test_failures_of_other_kinds_give_up_no_form(tmp_path, capsys):
    chance = random.Random(0)

    def mostly(body):
        return failure(500) if chance.random() < 0.2 else Reply(SCORES)

    with FakeOpenAI(mostly, forms=BOTH) as fake:
        judging(fake, times=60)
        assert [form_of(body) for body in fake.requests[-10:]].count("json_schema") >= 7
    assert "refused" not in capsys.readouterr().err


def test_a_question_that_is_refused_itself_gives_up_no_form(capsys):
    def answer(body):
        odd = len(fake.requests) > 5 and len(fake.requests) < 9
        return failure(400, "this prompt is odd") if odd else Reply(SCORES)

    with FakeOpenAI(answer, forms=BOTH) as fake:
        with pytest.raises(RoleFailure, match="is odd"):
            judging(fake, times=9)
        assert [form_of(body) for body in fake.requests[-4:]] == ["json_schema", *FORMS]
    with FakeOpenAI(Reply(SCORES), Reply(SCORES), failure(400, "odd"), Reply(SCORES), forms=BOTH) as fake:
        judging(fake, times=9)
        assert [form_of(body) for body in fake.requests[2:5]] == ["json_schema", "json_object", "json_schema"]
    assert "refused" not in capsys.readouterr().err


def test_the_form_that_is_configured_is_used_without_asking_and_still_falls_back(capsys):
    for form in FORMS:
        with FakeOpenAI(Reply(SCORES), forms=BOTH) as fake:
            judging(fake, form)
            assert [form_of(body) for body in fake.requests] == [form] and not fake.probes
    with FakeOpenAI(Reply(SCORES)) as fake:
        judging(fake, "json_schema", times=2)
        assert [form_of(body) for body in fake.requests] == ["json_schema", "json_object", "none", "none"]
    assert capsys.readouterr().err.count("json_schema replies are refused") == 1


def test_a_server_that_is_down_for_a_moment_is_asked_what_it_takes_later():
    with FakeOpenAI(Reply(SCORES), forms=BOTH) as fake:
        arrived, ahead = fake._start_request, iter([failure(503)])
        fake._start_request = lambda *request: [arrived(*request)] and next(ahead, None) or arrived(*request)
        judging(fake, times=2)
    assert form_of(fake.requests[-1]) == "json_schema"


def test_of_an_api_model_litellm_says_what_it_takes():
    models = ("openai/gpt-4o-mini", "gemini/gemini-2.5-flash", "anthropic/claude-sonnet-4-5")
    assert {structured_form(model) for model in models} == {"json_schema"}
    assert structured_form("openai/gpt-3.5-turbo") == "json_object"
    unknown = ("openai/not-there-yet", "openrouter/someone/not-there-yet", "anthropic/not-there-yet", "simulated/judge")
    assert {structured_form(model) for model in unknown} == {"none"}


def test_a_provider_with_a_protocol_of_its_own_gets_the_schema_in_its_own_form():
    model = "anthropic/claude-sonnet-4-5"
    with FakeOpenAI(anthropic_message(SCORES)) as fake:
        config = role_config(judge={"model": model, "structured": "json_schema"})

        async def ask(asking):
            return await RolePlayers(config, asking, EXTES, 0).judge(DIALOGUE, HISTORY[:2], "")

        asking = client(fake)
        assert asyncio.run(within(asking, ask(asking))) == {"E": 3, "I": 2, "H": 4, "S": 1}
    schema = fake.requests[0]["output_format"]["schema"]
    assert schema["required"] == ["empathy", "information", "humanoid", "strategy"] and not schema["additionalProperties"]
