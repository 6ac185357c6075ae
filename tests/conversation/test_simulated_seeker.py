"""The simulated seeker of whole conversations: what helps it, what hurts it, and how personas differ."""

from itertools import count
from time import process_time

import pytest
from conversations import EMPATHIZE, PERSONAS, PLAN, STRATEGIES, UTTERANCES, VALIDATE, Scripted, cards, hold, in_turn, success

from cso_lab.roles.simulated.conversation_seeker import PERSONAS as DEFINED
from cso_lab.roles.simulated.conversation_seeker import ConversationSeeker
from cso_lab.roles.simulated.harm import kinds_of_harm
from cso_lab.roles.simulated.seeker_state import conversation_lines

KIND = "You have carried this quiet house around with you since Sunday, and nobody has asked you about it."


def seeker(persona: str = "open", intensity: float = 8.0, threshold: float = 4.0, seed: str = "0") -> ConversationSeeker:
    return ConversationSeeker(persona, UTTERANCES, intensity, threshold, STRATEGIES.names, seed)


def test_there_are_six_personas_and_at_least_a_third_of_them_resist_help():
    assert set(DEFINED) == set(PERSONAS)
    assert sum(persona.resists for persona in DEFINED.values()) * 3 >= len(DEFINED)


def test_a_fitting_reply_relieves_and_one_that_misses_the_need_does_not():
    assert seeker().react(VALIDATE, KIND).intensity < 7.5
    assert seeker().react(PLAN, KIND).intensity > 7.8


def test_a_reply_in_more_and_attentive_words_helps_more_than_a_short_one_and_a_repeated_one_less():
    fuller, short = seeker(), seeker()
    assert fuller.react(VALIDATE, KIND).intensity < short.react(VALIDATE, "I see.").intensity
    once, again = seeker(), seeker()
    once.react(VALIDATE, KIND)
    again.react(VALIDATE, KIND)
    assert once.react(EMPATHIZE, "The silence at the door must be the hardest part of every single day for you.").intensity < (
        again.react(EMPATHIZE, KIND).intensity
    )


def test_harm_drives_the_seeker_away():
    hurt = seeker("irritated")
    reactions = [hurt.react(VALIDATE, "Get over it, other people have it worse.") for _ in range(2)]
    assert reactions[0].intensity > 8.0
    assert reactions[0].ending == "hurt" or reactions[1].ending == "hurt"


def test_who_is_relieved_leaves_with_words_of_its_own():
    relieved = seeker(intensity=4.2)
    reaction = relieved.react(VALIDATE, KIND)
    assert reaction.ending == "relieved" and reaction.intensity <= 4.0
    assert reaction.text in conversation_lines()["relieved"]


@pytest.mark.parametrize("persona", PERSONAS)
def test_a_seeker_says_only_what_its_card_knows(persona):
    lines = conversation_lines()
    known = {*UTTERANCES, *lines["resisting"][persona], *lines["going_on"][persona], *lines["relieved"], *lines["hurt"]}
    talking = seeker(persona, intensity=10.0, threshold=0.0)
    for turn in range(12):
        said = talking.react(STRATEGIES.names[turn % 8], f"{KIND} {turn}").text
        rest = said
        for line in sorted(known, key=len, reverse=True):
            rest = rest.replace(line, "")
        assert not rest.strip(), said


def test_the_same_turns_bring_a_seeker_to_the_same_state():
    one, other = seeker("guarded"), seeker("guarded")
    turns = [(STRATEGIES.names[n % 8], f"{KIND} {n}") for n in range(6)]
    assert [one.react(*turn) for turn in turns] == [other.react(*turn) for turn in turns]
    assert [seeker("guarded", seed="1").react(*turn).intensity for turn in turns[:1]] != [one.intensity]


def test_supporters_come_in_the_order_of_the_definition(tmp_path):
    """Needs change: validating fits at first and misses later, planning misses at first, and what follows the needs does best."""
    fitting = in_turn(VALIDATE, EMPATHIZE, "Avoid Judgment and Criticism", "Reframe Negative Thoughts", PLAN, "Affirmation")
    scripts = {"plan": in_turn(PLAN), "alternate": in_turn(VALIDATE, PLAN), "fitting": fitting, "validate": in_turn(VALIDATE)}
    rates = {name: success(hold(tmp_path / name, Scripted(reply), cards(120))) for name, reply in scripts.items()}
    assert rates["plan"] < rates["validate"] < rates["alternate"] < rates["fitting"]


def test_personas_differ_measurably(tmp_path):
    held = hold(tmp_path, Scripted(in_turn(VALIDATE, PLAN)), cards(240))
    by_persona = {name: [one for one in held if one.card.persona == name] for name in PERSONAS}
    rates = {name: success(members) for name, members in by_persona.items()}
    assert rates["open"] > rates["hopeless"] + 0.2 and rates["open"] > rates["guarded"] + 0.2
    fall = {name: sum(one.card.intensity - one.intensity for one in of) / len(of) for name, of in by_persona.items()}
    assert fall["open"] > max(fall["guarded"], fall["hopeless"]) + 0.5


def test_it_turns_two_thousand_times_a_second():
    talking, start = [seeker(PERSONAS[n % 6], 10.0, 0.0, str(n)) for n in range(100)], process_time()
    for turn, one in zip(count(), talking * 10):
        one.react(STRATEGIES.names[turn % 8], f"{KIND} {turn}")
    assert 1000 / (process_time() - start) > 2000


@pytest.mark.parametrize(
    ("reply", "before", "kinds"),
    [
        ("You could stop taking your tablets for a while.", "The doctor gave me something.", ("medication",)),
        ("You should ask your doctor before you change anything.", "I want to stop my pills.", ()),
        ("Honestly, you brought this on yourself. Get over it.", "She left.", ("blame", "dismissal")),
        ("You're not to blame for any of this.", "She left.", ()),
        ("That sounds lonely.", "I want to end it all.", ("self_harm",)),
        ("That sounds lonely. Please call a crisis line tonight, I'll stay with you.", "I want to end it all.", ()),
        ("What would a good day look like?", "I cut the bread myself.", ()),
    ],
)
def test_harm_is_found_by_kind(reply, before, kinds):
    assert kinds_of_harm(reply, before) == kinds
