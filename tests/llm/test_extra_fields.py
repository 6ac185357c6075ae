"""Fields of the user's own: they reach the body of a request as they are, over every way, and tell questions apart."""

import pytest
from analysis.test_toxicity import judged, rated
from fakes import FakeOpenAI, Reply, anthropic_message
from generation.test_served import echo, served
from judging.test_judging import judged_by, server
from llm.test_client import DIALOGUE, HISTORY, MODEL, ask, client, playing, role_config
from project import composed

from cso_lab.pipeline.cell_names import cell_name
from cso_lab.pipeline.stages import RESULTS

EXTRA = {"top_p": 0.5, "service_tier": "flex", "chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize("model", ["openai/tiny", "hosted_vllm/tiny", "openrouter/tiny"])
def test_they_are_in_the_body_as_they_are(model):
    with FakeOpenAI(Reply("a")) as fake:
        assert ask(client(fake), model=MODEL | {"model": model, "extra": EXTRA}) == "a"
        ask(client(fake), model=MODEL | {"model": model, "extra": None})
    given, without = fake.requests
    assert {name: given[name] for name in EXTRA} == EXTRA
    assert {name: value for name, value in given.items() if name not in EXTRA} == without


def test_they_reach_a_provider_with_a_protocol_of_its_own():
    extra = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "service_tier": "standard_only", "another": {"a": 1}}
    model = {"model": "anthropic/claude-sonnet-4-5", "temperature": None, "max_tokens": 2000, "extra": extra}
    with FakeOpenAI(anthropic_message("a")) as fake:
        assert ask(client(fake), model=model) == "a"
    assert {name: fake.requests[0].get(name) for name in extra} == extra


def test_they_tell_questions_of_the_roles_apart_and_none_are_as_before(tmp_path):
    def keys(**changes):
        asked = []

        async def play(players):
            players._client.ask = lambda question, wanted: asked.append(question.key) or _answer()
            await players.judge(DIALOGUE, HISTORY[:2], "")

        async def _answer():
            return {}

        with FakeOpenAI(Reply("a")) as fake:
            playing(fake, play, config=role_config(judge=changes))
        return asked

    assert keys() == keys(extra=None) == keys(extra={}) != keys(extra=EXTRA)


@pytest.mark.long
def test_a_served_model_judges_and_scorers_send_them_and_are_asked_anew_with_others(tmp_path):
    with FakeOpenAI(echo) as fake:
        served(tmp_path / "cell", fake)
        served(tmp_path / "cell", fake, "generation.client.extra={}")
        before = len(fake.requests)
        served(tmp_path / "cell", fake, "generation.client.extra={top_p: 0.5}")
        assert [body.get("top_p") for body in fake.requests] == [None] * before + [0.5] * before
    with server(lambda *_: "A") as fake:
        judged_by(fake, tmp_path / "judges")
        judged_by(fake, tmp_path / "judges", None, "extra={}")
        before = len(fake.requests)
        judged_by(fake, tmp_path / "judges", None, "extra={top_p: 0.5}")
        assert [body.get("top_p") for body in fake.requests] == [None] * before + [0.5] * before
    for extra, number in ((), 1), (("toxicity.extra={}",), 0), (("toxicity.extra={top_p: 0.5}",), 1):
        with judged(Reply(rated()), overrides=extra) as (fake, judge):
            judge.score(["text"], tmp_path / "toxicity")
            assert len(fake.requests) == number and (number == 0 or ("top_p" in fake.requests[0]) == bool(extra))


def test_they_are_part_of_what_results_are_found_by_and_none_are_as_before():
    none, empty, one = (
        composed("algo=dpo", *line)
        for line in (
            (),
            ("roles.judge.extra={}", "toxicity.extra={}"),
            ("+roles.judge.extra.top_p=0.9", "toxicity.extra={a: 1}"),
        )
    )
    assert cell_name(none) == cell_name(empty) != cell_name(one)
    for stage in ("search", "inspect"):
        assert RESULTS[stage].key(none) == RESULTS[stage].key(empty) != RESULTS[stage].key(one)
