"""Players on a server: what they are shown, what is asked again, and what an interrupted run pays for."""

import json
import re
from collections import Counter
from functools import cache

import pytest
from conversations import PLAN, STRATEGIES, UTTERANCES, VALIDATE, Scripted, card, cards, hold, in_turn
from fakes import FakeOpenAI, Reply, failure
from omegaconf import OmegaConf
from project import composed

from cso_lab.conversation.estimate import estimate
from cso_lab.conversation.judges import find_harm, score
from cso_lab.conversation.players import Players
from cso_lab.conversation.seekers import AskedSeekers, parse_reaction
from cso_lab.conversation.supporters import reference_supporter
from cso_lab.core.errors import UserError
from cso_lab.corpora import divide
from cso_lab.llm.budget import BudgetSpent
from cso_lab.llm.errors import ParseError

ASKED = ("conversation/seeker=llm", "conversation/harm=llm")
ROLES = [f"roles.{role}.model=openai/{role}" for role in ("seeker", "supporter", "strategist", "judge")]


@cache
def _composed(*overrides: str) -> dict:
    line = ("roles=server", "roles.api_base=http://127.0.0.1:9/v1", *ROLES, "roles.max_backoff=0.01", *ASKED, *overrides)
    cfg = composed(*line)
    return {key: OmegaConf.to_container(cfg[key], resolve=True) for key in ("conversation", "roles")}


def nodes(server: FakeOpenAI, *overrides: str, calls: int | None = None, slots: int = 8) -> dict:
    """The nodes `conversation` and `roles` with every player on the server."""
    cfg = _composed(*overrides)
    budget = cfg["roles"]["budget"] | {"calls": calls}
    return cfg | {"roles": cfg["roles"] | {"api_base": server.api_base, "max_concurrency": slots, "budget": budget}}


def reaction(text: str, intensity: float, leave: bool = False) -> Reply:
    return Reply(json.dumps({"text": text, "intensity": intensity, "leave": leave}))


def talk(folder, server: FakeOpenAI, answer, seekers, *overrides: str, **limits):
    """Conversations of a scripted supporter with seekers on the server, who reply by `answer`."""
    server.replies = [answer]
    cfg = nodes(server, *overrides, **limits)
    with Players(cfg["roles"], folder / "calls", range(1, len(seekers) + 1), STRATEGIES, seed=0) as players:
        asked = AskedSeekers(cfg["conversation"]["seeker"], players, threshold=4)
        return hold(folder, Scripted(in_turn(VALIDATE, PLAN)), seekers, 5, reactions=asked)


def falling(body: dict) -> Reply:
    """A seeker that says how often it was spoken to, and whose emotion falls by one a turn."""
    turns = body["messages"][-1]["content"].count("Supporter: ")
    return reaction(f"That was reply {turns}.", 8 - turns)


def test_an_asked_seeker_is_shown_its_card_and_persona_and_rates_itself(tmp_path):
    with FakeOpenAI(None) as server:
        (held,) = talk(tmp_path, server, falling, [card(persona="guarded", intensity=8.0)])
    assert [turn.intensity for turn in held.exchanges] == [7.0, 6.0, 5.0, 4.0] and held.ending == "relieved"
    query = server.requests[1]["messages"][-1]["content"]
    assert all(f"- {utterance}" in query for utterance in UTTERANCES)
    assert "You do not trust easily" in query and "before the supporter's last turn: 7\n" in query
    assert "Emotional Validation" not in query  # it hears what is said, and not the strategy behind it


def test_a_seeker_that_leaves_without_relief_was_hurt(tmp_path):
    with FakeOpenAI(None) as server:
        (held,) = talk(tmp_path, server, lambda _: reaction("Enough.", 8, leave=True), [card()])
    assert (held.ending, len(held.exchanges), held.exchanges[0].seeker) == ("hurt", 1, "Enough.")


def test_a_seeker_that_never_says_anything_usable_is_set_aside_and_the_others_go_on(tmp_path):
    def answer(body: dict) -> Reply:
        return Reply("I am an assistant.") if "My nature is odd" in body["messages"][-1]["content"] else falling(body)

    odd = "conversation.seeker.personas.hopeless='My nature is odd'"
    with FakeOpenAI(None) as server:
        one, other = talk(tmp_path, server, answer, [card(1, "hopeless", 8.0), card(2, "open", 8.0)], odd)
    assert one.set_aside and other.ending == "relieved"


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ('{"text": "Oh \\"no\\".", "intensity": 7, "leave": false}', ('Oh "no".', 7.0, False)),
        ('Sure:\n```json\n{"leave": "true", "intensity": "3.5", "text": "Bye."}\n```', ("Bye.", 3.5, True)),
        ('{"text": "Thank you. </end/>", "intensity": 2, "leave": false}', ("Thank you.", 2.0, True)),
    ],
)
def test_a_reaction_is_read_in_any_reasonable_form(reply, read):
    assert parse_reaction(reply) == read


@pytest.mark.parametrize(
    "reply", ["Hello.", '{"text": "Hm.", "intensity": 11, "leave": false}', '{"text": "Hm.", "leave": true}']
)
def test_anything_else_is_asked_again(reply):
    with pytest.raises(ParseError):
        parse_reaction(reply)


@pytest.mark.parametrize("slots", [1, 8])
def test_the_conversations_are_the_same_whatever_the_concurrency_and_nothing_is_paid_twice(slots, tmp_path):
    with FakeOpenAI(None) as server:
        whole = talk(tmp_path / "whole", server, falling, cards(6))
        paid = len(server.requests)
        server.requests.clear()
        with pytest.raises(BudgetSpent):
            talk(tmp_path / "cut", server, falling, cards(6), slots=slots, calls=paid - 5)
        assert talk(tmp_path / "cut", server, falling, cards(6), slots=slots) == whole
    assert len(server.requests) == paid


def test_the_judges_read_each_reply_after_what_led_to_it(tmp_path):
    harmless = dict.fromkeys(("medication", "blame", "dismissal", "self_harm"), 0)

    def judge(body: dict) -> Reply:
        query = body["messages"][-1]["content"]
        if "The reply to check:" in query:
            return Reply(json.dumps(harmless | {"blame": int("number 1" in query.rpartition("check:")[2])}))
        turns = query.count("Supporter (")
        return Reply(json.dumps({"empathy": turns, "information": 1, "humanoid": 2, "strategy": 3}))

    with FakeOpenAI(None) as server:
        held = talk(tmp_path, server, falling, [card(intensity=8.0)])
        server.replies = [judge]
        cfg = nodes(server)
        with Players(cfg["roles"], tmp_path / "judges", [1], STRATEGIES, seed=0) as players:
            (judged,) = find_harm(score(held, cfg["roles"]["judge"], players), cfg["conversation"]["harm"], players)
    assert [turn.scores["E"] for turn in judged.exchanges] == [1, 2, 3, 4]
    assert [turn.harm for turn in judged.exchanges] == [(), ("blame",), (), ()]


def test_the_references_choose_as_they_say(tmp_path):
    """The strategist's best strategy, a random one, and the gold turns as far as they go; seekers who never leave."""

    def role_players(body: dict) -> Reply:
        query = body["messages"][-1]["content"]
        if "Strategy for your next reply" in query:
            return Reply(f"As I would say in {re.search(r'reply: ([A-Z][^(]*) [(]', query)[1]}.")
        if body["model"].endswith("seeker"):
            return reaction("Mhm.", 9)
        return Reply(json.dumps({name: 9 if name == PLAN else 3 for name in STRATEGIES.names}))

    _, _, test = divide(composed().data)
    gold = [turn.text for turn in test[0].turns if turn.speaker == "supporter"]
    held = {}
    with FakeOpenAI(role_players) as server:
        cfg = nodes(server)
        for name in ("gold", "strategist", "random"):
            seekers = [card(n) if name != "gold" else _card_of(test[0]) for n in range(1, 9)]
            with Players(cfg["roles"], tmp_path / name, range(1, 9), STRATEGIES, seed=0) as players:
                supporter = reference_supporter(name, cfg["roles"], players, test, STRATEGIES, seed=0)
                asked = AskedSeekers(cfg["conversation"]["seeker"], players, threshold=4)
                held[name] = hold(tmp_path / name, supporter, seekers, 20 if name == "gold" else 4, reactions=asked)
    assert {turn.strategy for one in held["strategist"] for turn in one.exchanges} == {PLAN}
    assert held["strategist"][0].exchanges[0].text == f"As I would say in {PLAN}."
    assert len(Counter(turn.strategy for one in held["random"] for turn in one.exchanges)) >= 6
    assert [turn.text for turn in held["gold"][0].exchanges] == gold and held["gold"][0].ending == "out_of_turns"


@pytest.mark.parametrize(
    ("line", "roles"),
    [
        (ASKED, {"seeker", "judge", "harm"}),
        (("conversation.reference=strategist",), {"judge", "strategist", "supporter"}),
        (("backbone=gpt_4o_mini",), {"judge", "supporter"}),
    ],
)
def test_an_estimate_counts_the_requests_to_every_player(line, roles):
    cfg = composed("roles=openai", "algo=base", *line)
    nodes = [OmegaConf.to_container(cfg[node], resolve=True) for node in ("conversation", "roles", "generation")]
    said = estimate(cards(10), *nodes, STRATEGIES)
    turns = int(re.search(r"10 seekers, about (\d+) supporter turns [(]100 at most[)]", said)[1])
    assert dict(re.findall(r"(\w+) (\d+)[,;]", said.partition(" calls (")[2])) == dict.fromkeys(roles, str(turns))
    assert "$" in said


def test_without_models_an_estimate_asks_nobody():
    cfg = composed("algo=base")
    nodes = [OmegaConf.to_container(cfg[node], resolve=True) for node in ("conversation", "roles", "generation")]
    assert estimate(cards(10), *nodes, STRATEGIES).endswith("supporter turns (100 at most); no model is asked over HTTP")


def test_what_a_server_takes_and_refuses_is_remembered_from_turn_to_turn(tmp_path, capsys):
    def role_players(body: dict) -> Reply:
        if "seed" in body:
            return failure(400, "Unsupported parameter: 'seed' is not supported with this model.")
        if body["model"] == "supporter":
            return Reply("I hear you.")
        return Reply(json.dumps({name: 9 if name == PLAN else 3 for name in STRATEGIES.names}))

    with FakeOpenAI(role_players, forms=("json_object",)) as server:
        cfg = nodes(server)
        with Players(cfg["roles"], tmp_path / "calls", range(1, 3), STRATEGIES, seed=0) as players:
            supporter = reference_supporter("strategist", cfg["roles"], players, [], STRATEGIES, seed=0)
            hold(tmp_path, supporter, cards(2), 4)
    assert len(server.probes) == 2, "one with a schema, one without"
    assert {body["response_format"]["type"] for body in server.requests if body["model"] == "strategist"} == {"json_object"}
    assert capsys.readouterr().err.count("does not take the parameter seed") == 2, "of two models"


def test_seekers_and_judges_of_harm_are_held_to_a_schema(tmp_path):
    with FakeOpenAI(None, forms=("json_schema",)) as server:
        held = talk(tmp_path, server, falling, cards(1), "conversation.seeker.extra={top_p: 0.5}")
        schema = server.requests[-1]["response_format"]["json_schema"]["schema"]
        assert schema["required"] == ["text", "intensity", "leave"] and server.requests[-1]["top_p"] == 0.5
        server.replies = [Reply("{}")]
        cfg = nodes(server)
        with Players(cfg["roles"], tmp_path / "judges", [1], STRATEGIES, seed=0) as players:
            (judged,) = find_harm(held, cfg["conversation"]["harm"], players)
        schema = server.requests[-1]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["blame"] == {"type": "integer", "minimum": 0, "maximum": 1}
    assert {turn.harm for turn in judged.exchanges} == {()} and len(server.probes) == 2


def test_errors_name_the_keys_of_conversations(tmp_path):
    with FakeOpenAI(failure(400, "Unsupported value: 'temperature' does not support 0.8 with this model.")) as server:
        with pytest.raises(UserError, match="give conversation.seeker.temperature=null"):
            talk(tmp_path, server, server.replies[0], cards(1))


def _card_of(dialogue):
    from cso_lab.conversation.cards import draw_cards, of_dialogues

    settings = {"seekers": 1, "seed": 0, "personas": ["open"], "weakest": 7, "strongest": 7}
    return draw_cards(settings, of_dialogues([dialogue]))[0]
