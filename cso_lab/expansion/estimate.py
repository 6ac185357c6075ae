"""Estimates what a search will use before it runs: the simulated players run it on a few dialogues, and their requests are counted.

This dry run uses the configured search class and the real prompts, on a sample of dialogues (the shortest, the longest and some in
between), and scales the counts to all dialogues. Tokens are characters divided by four, and replies are no longer than `max_tokens`.
Unknown are how long real seekers stay and how high a real judge scores: `calls_if_nobody_leaves` counts the calls for seekers who never
end a dialogue. Retries and prefetched replies that are never used come on top.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from litellm.llms.custom_llm import CustomLLMError

from cso_lab.core.records import Dialogue
from cso_lab.expansion.configured_search import ConfiguredSearch
from cso_lab.llm import prices
from cso_lab.llm.client import CHARACTERS_A_TOKEN, Question, estimated_tokens
from cso_lab.roles.simulated.provider import simulated_reply

SAMPLED_DIALOGUES = 5


@dataclass
class Estimate:
    """Expected calls and tokens by role; `calls_if_nobody_leaves`: calls if no seeker ends a dialogue."""

    calls: Counter = field(default_factory=Counter)
    prompt_tokens: Counter = field(default_factory=Counter)
    completion_tokens: Counter = field(default_factory=Counter)
    calls_if_nobody_leaves: float = 0.0
    iterations: float = 0.0

    @property
    def tokens(self) -> float:
        """Prompt and completion tokens of all roles."""
        return self.prompt_tokens.total() + self.completion_tokens.total()

    def scaled(self, factor: float) -> "Estimate":
        """Returns this estimate with every number multiplied by `factor`."""
        counters = (self.calls, self.prompt_tokens, self.completion_tokens)
        scaled = (Counter({role: number * factor for role, number in counter.items()}) for counter in counters)
        return Estimate(*scaled, self.calls_if_nobody_leaves * factor, self.iterations * factor)

    def cost(self, roles: Mapping) -> float | None:
        """Returns the cost in US dollars; None if the price of a role's model is unknown. `roles`: the config node."""
        costs = [
            prices.cost(roles[role]["model"], round(self.prompt_tokens[role]), round(self.completion_tokens[role]))
            for role in self.calls
        ]
        return None if None in costs else sum(costs)

    def describe(self, roles: Mapping) -> str:
        """Returns the estimate as one line of text."""
        by_role = ", ".join(f"{role} {number:,.0f}" for role, number in sorted(self.calls.items()))
        cost = self.cost(roles)
        dollars = "cost unknown (a model without a known price)" if cost is None else f"${cost:,.2f}"
        return (
            f"about {self.calls.total():,.0f} calls ({by_role}; {self.calls_if_nobody_leaves:,.0f} if no seeker leaves early), "
            f"{self.prompt_tokens.total():,.0f} + {self.completion_tokens.total():,.0f} tokens, {dollars}"
        )

    def to_json(self, roles: Mapping) -> dict:
        """Returns the estimate in rounded numbers, as `estimate` in search.json holds it."""
        calls = {role: round(number) for role, number in sorted(self.calls.items())}
        tokens = {
            "prompt_tokens": round(self.prompt_tokens.total()),
            "completion_tokens": round(self.completion_tokens.total()),
        }
        most = round(self.calls_if_nobody_leaves)
        return {"calls": calls, "calls_if_nobody_leaves": most, **tokens, "cost": self.cost(roles)}


def estimate(search: ConfiguredSearch, dialogues: Sequence[Dialogue]) -> Estimate:
    """Returns what `search` will use for `dialogues`, all of them searched from the start."""
    by_length = sorted(dialogues, key=lambda dialogue: len(dialogue.turns))
    step = max(1, (len(by_length) - 1) // (SAMPLED_DIALOGUES - 1))
    sample = by_length[::step][:SAMPLED_DIALOGUES]
    if not sample:
        return Estimate()
    counts = _dry_run(search, sample)
    counts.calls_if_nobody_leaves = _dry_run(search, sample, seekers_leave=False).calls.total()
    return counts.scaled(len(dialogues) / len(sample))


def _dry_run(search: ConfiguredSearch, dialogues: Sequence[Dialogue], seekers_leave: bool = True) -> Estimate:
    """Returns the counts of a search of `dialogues` with simulated players."""
    client = _CountingClient(seekers_leave, search.strategies.names)
    iterations: dict[str, int] = {}
    role_players = search.role_players(client)
    searcher = search.searcher(role_players)

    async def run() -> None:
        for dialogue in dialogues:
            await search.expand_dialogue(searcher, dialogue, partial(iterations.__setitem__, dialogue.id))
            role_players.forget(dialogue)

    asyncio.run(run())
    client.counts.iterations = sum(iterations.values())
    return client.counts


class _CountingClient:
    """Takes the place of a Client: answers every question with a simulated reply and counts it."""

    max_concurrency = 0  # no slot is ever idle, so nothing is prefetched

    def __init__(self, seekers_leave: bool, strategies: Sequence[str]):
        self._seekers_leave, self._strategies, self.counts = seekers_leave, strategies, Estimate()

    def check(self, models: Mapping[str, str]) -> None:
        pass

    async def ask(self, question: Question, wanted: Callable[[], bool]) -> object:
        reply = self._reply(question)
        self.counts.calls[question.role] += 1
        self.counts.prompt_tokens[question.role] += estimated_tokens(question.messages)
        tokens, max_tokens = len(reply) // CHARACTERS_A_TOKEN, question.model["max_tokens"]
        self.counts.completion_tokens[question.role] += tokens if max_tokens is None else min(tokens, max_tokens)
        return question.parse(reply)

    def _reply(self, question: Question) -> str:
        try:
            reply = simulated_reply(question.role, question.messages, question.seed)
        except CustomLLMError:  # the simulated players cannot read a user's own prompt
            reply = self._fixed_reply(question.role)
        return reply if self._seekers_leave else reply.replace("</end/>", "").strip() or "Mhm."

    def _fixed_reply(self, role: str) -> str:
        if role == "strategist":
            return json.dumps(dict.fromkeys(self._strategies, 5))
        if role == "judge":
            return json.dumps(dict.fromkeys(("empathy", "information", "humanoid", "strategy"), 3))
        return "I know what you mean, and I would like to hear more about how that has been for you lately."
