"""Estimates what conversations will use before they are held.

Simulated seekers talk with a supporter of random strategies, and the requests are counted that the configured models would get. Unknown is
how long the seekers of the real model stay: `at most` counts turns as if nobody left. Tokens are characters divided by four; retries come
on top.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from cso_lab.conversation.converse import converse
from cso_lab.conversation.judges import harm_questions, score_questions
from cso_lab.conversation.players import Players
from cso_lab.conversation.records import CUT, Card, Conversation
from cso_lab.conversation.seekers import AskedSeekers, SimulatedSeekers
from cso_lab.conversation.supporters import RolePlayingSupporter, strategist_question
from cso_lab.core.records import SUPPORTER, prompt_messages
from cso_lab.core.strategies import StrategySet, format_reply
from cso_lab.llm import prices
from cso_lab.llm.client import CHARACTERS_A_TOKEN, Question, estimated_tokens
from cso_lab.roles.simulated.conversation_seeker import PERSONAS

_REPLY = "I know what you mean, and I would like to hear more about how that has been for you lately."
# Tokens of a reply of each role, in the form it is asked for.
_REPLY_TOKENS = {"seeker": 45, "judge": 30, "harm": 25, "strategist": 70, "supporter": len(_REPLY) // CHARACTERS_A_TOKEN}


def estimate(cards: Sequence[Card], settings: Mapping, roles: Mapping, generation: Mapping, strategies: StrategySet) -> str:
    """Returns what conversations with the seekers of `cards` will use, as text; the others are nodes of the configuration."""
    held, most = _dry_run(cards, settings, strategies), len(cards) * settings["max_turns"]
    turns = sum(len(conversation.exchanges) for conversation in held)
    text = f"conversations: {len(held):,} seekers, about {turns:,} supporter turns ({most:,} at most)"
    questions = list(_questions(held, settings, roles, generation, strategies))
    if not questions:
        return f"{text}; no model is asked over HTTP"
    calls, prompt, reply, costs = {}, 0, 0, []
    for question in questions:
        asked, model = estimated_tokens(question.messages), question.model
        answered = min(_REPLY_TOKENS[question.role], model["max_tokens"] or _REPLY_TOKENS[question.role])
        calls[question.role] = calls.get(question.role, 0) + 1
        prompt, reply = prompt + asked, reply + answered
        costs.append(prices.cost(model["model"], asked, answered))
    by_role = ", ".join(f"{role} {number:,}" for role, number in sorted(calls.items()))
    dollars = "cost unknown (a model without a known price)" if None in costs else f"${sum(costs):,.2f}"
    at_most = round(len(questions) * most / max(turns, 1))
    return f"{text}; about {len(questions):,} calls ({by_role}; {at_most:,} at most), {prompt:,} + {reply:,} tokens, {dollars}"


class _RandomSupporter:
    """Says the same in random strategies."""

    batch_size, without_words = None, CUT

    def __init__(self, strategies: StrategySet):
        self._names = strategies.names

    def reply(self, conversations: Sequence[Conversation]) -> list[str]:
        """See `Supporter`."""
        draws = (random.Random(f"{each.seeker}/{len(each.exchanges)}") for each in conversations)
        return [format_reply(rng.choice(self._names), _REPLY) for rng in draws]


def _dry_run(cards: Sequence[Card], settings: Mapping, strategies: StrategySet) -> list[Conversation]:
    # Personas of an asked seeker that the simulated one does not know are taken for its first.
    known = [card if card.persona in PERSONAS else replace(card, persona=next(iter(PERSONAS))) for card in cards]
    seekers = SimulatedSeekers(settings["threshold"], strategies.names, settings["seed"])
    with TemporaryDirectory() as folder:
        journal = Path(folder) / "rounds"
        held = converse(known, _RandomSupporter(strategies), seekers, strategies, settings["max_turns"], journal)
    return [replace(conversation, card=card) for conversation, card in zip(held, cards, strict=True)]


def _questions(
    held: Sequence[Conversation], settings: Mapping, roles: Mapping, generation: Mapping, strategies: StrategySet
) -> Iterator[Question]:
    """Yields the requests to models that do not run in this process."""
    players = Players(roles, Path(), [], strategies, settings["seed"])
    questions = score_questions(held, roles["judge"], players)
    if "model" in settings["harm"]:
        questions += harm_questions(held, settings["harm"], players)
    for conversation in held:
        for turn, exchange in enumerate(conversation.exchanges):
            before = replace(conversation, exchanges=conversation.exchanges[:turn], ending=None)
            if "model" in settings["seeker"]:
                asked = AskedSeekers(settings["seeker"], players, settings["threshold"])
                questions.append(asked.question(before, exchange.strategy, exchange.text))
            if settings["reference"] in ("strategist", "random"):
                supporter = RolePlayingSupporter(roles, players, strategies, lambda _: [])
                questions.append(supporter.question(before, exchange.strategy))
            if settings["reference"] == "strategist":
                questions.append(strategist_question(before, roles["strategist"], players, strategies))
            if settings["reference"] is None and generation["engine"] == "server":
                model = {"model": generation["client"]["model"], "max_tokens": generation["max_new_tokens"]}
                messages = prompt_messages(before.history, strategies)
                questions.append(Question("", "", SUPPORTER, model, messages, 0, str))
    return (question for question in questions if not question.model["model"].startswith("simulated/"))
