"""Conversations are held all at once, and are the same however they are held and wherever they are interrupted."""

import json

import pytest
from conversations import PLAN, STRATEGIES, VALIDATE, Scripted, card, cards, hold, in_turn

from cso_lab.conversation.records import CUT, HURT, OUT_OF_TURNS, RELIEVED, Conversation
from cso_lab.core.records import SEEKER, SUPPORTER
from cso_lab.roles.simulated.conversation_seeker import Reaction


class ScriptedSeekers:
    """Seekers who react by the turn: `reactions[turn]`, the last one for ever."""

    def __init__(self, *reactions):
        self._reactions = reactions

    def react(self, conversations, replies):
        return [self._reactions[min(len(each.exchanges), len(self._reactions) - 1)] for each in conversations]


def test_a_conversation_is_what_was_said_in_turn(tmp_path):
    seekers = ScriptedSeekers(Reaction("Yes.", 6.0, None), Reaction("Thank you.", 3.0, RELIEVED))
    supporter = Scripted(in_turn(VALIDATE, PLAN))
    (held,) = hold(tmp_path, supporter, [card()], reactions=seekers)
    assert [turn.speaker for turn in held.history] == [SEEKER, SUPPORTER] * 2 + [SEEKER]
    assert [turn.strategy for turn in held.exchanges] == [VALIDATE, PLAN]
    assert [turn.intensity for turn in held.exchanges] == [6.0, 3.0]
    assert (held.ending, held.cut_by, held.intensity) == (RELIEVED, None, 3.0)
    assert Conversation.from_json(json.loads(json.dumps(held.to_json()))) == held


def test_a_seeker_that_never_leaves_has_all_its_turns(tmp_path):
    (held,) = hold(tmp_path, Scripted(in_turn(VALIDATE)), [card()], 7, reactions=ScriptedSeekers(Reaction("Mhm.", 9.0, None)))
    assert len(held.exchanges) == 7 and held.ending == OUT_OF_TURNS


@pytest.mark.parametrize("silence", [None, "", "   ", "(Affirmation) "])
def test_a_supporter_that_says_nothing_is_cut_and_changes_nothing(silence, tmp_path):
    (held,) = hold(tmp_path, Scripted(lambda _: silence), [card()])
    assert (held.ending, held.cut_by, held.exchanges, held.intensity) == (CUT, SUPPORTER, (), 7.0)


def test_a_seeker_whose_player_refuses_is_set_aside(tmp_path):
    (held,) = hold(tmp_path, Scripted(in_turn(VALIDATE)), [card()], reactions=ScriptedSeekers(None))
    assert (held.ending, held.cut_by, held.set_aside, held.exchanges[0].seeker) == (CUT, SEEKER, True, None)


def test_one_strategy_for_ever_loses_those_who_need_another(tmp_path):
    held = hold(tmp_path, Scripted(in_turn(PLAN)), cards(60))
    assert sum(one.ending == HURT for one in held) > 20


@pytest.mark.parametrize("size", [1, 7, None])
def test_conversations_do_not_depend_on_the_batch(size, tmp_path):
    together = hold(tmp_path / "all", Scripted(in_turn(*STRATEGIES.names)), cards(20))
    supporter = Scripted(in_turn(*STRATEGIES.names), size)
    assert hold(tmp_path / "batches", supporter, cards(20)) == together
    assert max(supporter.asked) == (size or 20)


@pytest.mark.parametrize("size", [6, None])
def test_an_interrupted_run_goes_on_with_the_next_round(size, tmp_path):
    whole = hold(tmp_path / "whole", Scripted(in_turn(*STRATEGIES.names)), cards(20))

    class Killed(Exception):
        pass

    class Interrupted(Scripted):
        def reply(self, conversations):
            if len(self.asked) == 3:
                raise Killed
            return super().reply(conversations)

    with pytest.raises(Killed):
        hold(tmp_path / "cut", Interrupted(in_turn(*STRATEGIES.names), size), cards(20))
    journal = tmp_path / "cut" / "rounds"
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 3
    # A process that is killed while it writes leaves part of a line.
    with journal.open("ab") as file:
        file.write(b'[{"seeker": 1, "turn": {"strat')
    supporter = Scripted(in_turn(*STRATEGIES.names), size)
    assert hold(tmp_path / "cut", supporter, cards(20)) == whole
    held = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    assert len(held) == 3 + len(supporter.asked)
    # A finished one asks nobody.
    again = Scripted(in_turn(*STRATEGIES.names), size)
    assert hold(tmp_path / "cut", again, cards(20)) == whole and again.asked == []
