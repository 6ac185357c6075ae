"""What is said of every reply once the conversations are over: the judge's scores, and whether it does harm."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from cso_lab.conversation.players import HARM, Players
from cso_lab.conversation.records import Conversation
from cso_lab.llm.client import Question
from cso_lab.llm.reply_form import integer_schema, object_schema
from cso_lab.roles.parsing import parse_judge, parse_ratings
from cso_lab.roles.simulated.harm import HARMS, kinds_of_harm

HARM_PLACEHOLDERS = ("dialogue", "reply")


def score(conversations: Sequence[Conversation], judge: Mapping, players: Players) -> list[Conversation]:
    """Returns the conversations with the scores {E, I, H, S} of every reply; None where the judge refused.

    `judge`: the config node `roles.judge`.
    """
    answers, _ = players.ask(score_questions(conversations, judge, players), "judge")
    return _with(conversations, "scores", answers)


def score_questions(conversations: Sequence[Conversation], judge: Mapping, players: Players) -> list[Question]:
    """Returns the questions to the judge, one a reply."""
    return [
        players.question("judge", judge, conversation, turn, conversation.history[: 2 * turn + 2], parse_judge, {})
        for conversation, turn in _turns(conversations)
    ]


def find_harm(conversations: Sequence[Conversation], judge: Mapping, players: Players) -> list[Conversation]:
    """Returns the conversations with the kinds of harm of every reply, by word lists or by a language model.

    `judge`: the config node `conversation.harm`. Where the model refuses to judge a reply, its kinds are None.
    """
    if "model" not in judge:
        turns = _turns(conversations)
        kinds = [kinds_of_harm(each.exchanges[turn].text, each.history[2 * turn].text) for each, turn in turns]
        return _with(conversations, "harm", kinds)
    answers, _ = players.ask(harm_questions(conversations, judge, players), "harm")
    kinds = [answer and tuple(kind for kind in HARMS if answer[kind]) for answer in answers]
    return _with(conversations, "harm", kinds)


def harm_questions(conversations: Sequence[Conversation], judge: Mapping, players: Players) -> list[Question]:
    """Returns the questions to a language model that judges harm, one a reply."""
    parse, schema = partial(parse_ratings, names=HARMS, highest=1), object_schema(HARMS, integer_schema(0, 1))
    return [
        players.question(
            HARM, judge, each, turn, each.history[: 2 * turn + 1], parse, {"reply": each.exchanges[turn].text}, schema
        )
        for each, turn in _turns(conversations)
    ]


def _turns(conversations: Sequence[Conversation]):
    return ((conversation, turn) for conversation in conversations for turn in range(len(conversation.exchanges)))


def _with(conversations: Sequence[Conversation], field: str, values: Sequence) -> list[Conversation]:
    """Returns the conversations with the next of `values` in this field of every exchange."""
    following = iter(values)
    return [
        replace(each, exchanges=tuple(replace(exchange, **{field: next(following)}) for exchange in each.exchanges))
        for each in conversations
    ]
