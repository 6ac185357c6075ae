"""What a search will take, before it takes anything: a rehearsal of it by the simulated players, its questions counted.

A rehearsal runs the configured search itself, whatever class it is, with the real prompts, on a few of the dialogues (the shortest, the
longest and some between), and the rest is taken to be like them. Tokens are characters over four, replies no longer than `max_tokens`.
What it cannot know is how long real seekers stay and how kindly a real judge scores: `if_nobody_leaves` counts the calls for seekers who
never end a dialogue. Repeated attempts, and what speculation asks in vain, come on top.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from litellm.llms.custom_llm import CustomLLMError

from cso_lab.core.records import Dialogue
from cso_lab.expansion.configured_search import Plan
from cso_lab.llm import prices
from cso_lab.llm.client import CHARACTERS_A_TOKEN, Question, estimated_tokens
from cso_lab.roles.simulated.provider import simulated_reply

REHEARSED = 5  # dialogues


@dataclass
class Estimate:
    """Calls and tokens by role; `if_nobody_leaves`: calls when no seeker ends a dialogue. `cost` in US dollars."""

    calls: Counter = field(default_factory=Counter)
    prompt_tokens: Counter = field(default_factory=Counter)
    completion_tokens: Counter = field(default_factory=Counter)
    if_nobody_leaves: float = 0.0
    iterations: float = 0.0

    @property
    def tokens(self) -> float:
        return self.prompt_tokens.total() + self.completion_tokens.total()

    def times(self, factor: float) -> "Estimate":
        counters = (self.calls, self.prompt_tokens, self.completion_tokens)
        scaled = (Counter({role: number * factor for role, number in counter.items()}) for counter in counters)
        return Estimate(*scaled, self.if_nobody_leaves * factor, self.iterations * factor)

    def cost(self, roles: Mapping) -> float | None:
        """None when the price of a role's model is not known."""
        costs = [
            prices.cost(roles[role]["model"], round(self.prompt_tokens[role]), round(self.completion_tokens[role]))
            for role in self.calls
        ]
        return None if None in costs else sum(costs)

    def line(self, roles: Mapping) -> str:
        """The estimate for people to read."""
        by_role = ", ".join(f"{role} {number:,.0f}" for role, number in sorted(self.calls.items()))
        cost = self.cost(roles)
        dollars = "cost unknown (a model without a known price)" if cost is None else f"${cost:,.2f}"
        return (
            f"about {self.calls.total():,.0f} calls ({by_role}; {self.if_nobody_leaves:,.0f} if no seeker leaves early), "
            f"{self.prompt_tokens.total():,.0f} + {self.completion_tokens.total():,.0f} tokens, {dollars}"
        )

    def to_json(self, roles: Mapping) -> dict:
        rounded = {role: round(number) for role, number in sorted(self.calls.items())}
        tokens = {
            "prompt_tokens": round(self.prompt_tokens.total()),
            "completion_tokens": round(self.completion_tokens.total()),
        }
        return {"calls": rounded, "calls_if_nobody_leaves": round(self.if_nobody_leaves), **tokens, "cost": self.cost(roles)}


def estimate(plan: Plan, dialogues: Sequence[Dialogue]) -> Estimate:
    """What `plan` takes for `dialogues`, which are searched from the start."""
    by_length = sorted(dialogues, key=lambda dialogue: len(dialogue.turns))
    step = max(1, (len(by_length) - 1) // (REHEARSED - 1))
    sample = by_length[::step][:REHEARSED]
    if not sample:
        return Estimate()
    found = _rehearse(plan, sample)
    found.if_nobody_leaves = _rehearse(plan, sample, leaving=False).calls.total()
    return found.times(len(dialogues) / len(sample))


def _rehearse(plan: Plan, dialogues: Sequence[Dialogue], leaving: bool = True) -> Estimate:
    client = _Rehearsal(leaving, plan.strategies.names)
    iterations = dict.fromkeys((dialogue.id for dialogue in dialogues), 0)
    role_players = plan.role_players(client)
    search = plan.search(role_players)

    async def run() -> None:
        for dialogue in dialogues:
            await plan.grow(search, dialogue, lambda iteration, id=dialogue.id: iterations.update({id: iteration}))
            role_players.forget(dialogue)

    asyncio.run(run())
    client.found.iterations = sum(iterations.values())
    return client.found


class _Rehearsal:
    """Stands where the client stands, and counts."""

    max_concurrency = 0  # no slot is ever idle: nothing is worked on ahead

    def __init__(self, leaving: bool, strategies: Sequence[str]):
        self._leaving, self._strategies, self.found = leaving, strategies, Estimate()

    def check(self, models: Mapping) -> None:
        pass

    async def ask(self, question: Question, wanted) -> object:
        reply = self._reply(question)
        self.found.calls[question.role] += 1
        self.found.prompt_tokens[question.role] += estimated_tokens(question.messages)
        said, most = len(reply) // CHARACTERS_A_TOKEN, question.model["max_tokens"]
        self.found.completion_tokens[question.role] += said if most is None else min(said, most)
        return question.parse(reply)

    def _reply(self, question: Question) -> str:
        try:
            reply = simulated_reply(question.role, question.messages, question.seed)
        except CustomLLMError:  # prompts of the user's own that the simulated players cannot read
            reply = self._any_reply(question.role)
        return reply if self._leaving else reply.replace("</end/>", "").strip() or "Mhm."

    def _any_reply(self, role: str) -> str:
        if role == "strategist":
            return json.dumps(dict.fromkeys(self._strategies, 5))
        if role == "judge":
            return json.dumps(dict.fromkeys(("empathy", "information", "humanoid", "strategy"), 3))
        return "I know what you mean, and I would like to hear more about how that has been for you lately."
