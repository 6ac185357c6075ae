"""Asks the judge of the roles for scores of replies, as the search does: with the same prompt, journal, limits and budget."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cso_lab.config.clients import LIMITS
from cso_lab.core.records import SUPPORTER, Dialogue, Scores, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.core.task_group import gather
from cso_lab.training.rewards.rollout import Rollout

# Part of a question's key: the same reply in the same state is scored once.
_SAMPLE = "reward"


class RoleJudge:
    """The judge of `roles`, the configuration of the role players and their client; its replies are journaled in `folder`.

    Each of several `processes` has a judge and a folder of its own. They share caps and rates evenly.
    """

    def __init__(self, roles: Mapping, strategies: StrategySet, seed: int, folder: Path, processes: int = 1):
        self._roles, self._strategies, self._seed, self._folder = _of_one(roles, processes), strategies, seed, folder
        self._processes = processes
        self._unanswered = 0

    def __call__(self, rollouts: Sequence[Rollout]) -> list[Scores | None]:
        """Returns the scores of each reply; None if the judge gave none, which is said on stderr the first time.

        Raises ServiceError if the server is down or the account cannot be used, and BudgetSpent if a cap is reached; after either the
        same command goes on, and asks nothing again.
        """
        from cso_lab.llm.budget import BudgetSpent
        from cso_lab.llm.client import Client
        from cso_lab.llm.journal import Journal
        from cso_lab.roles.role_players import RolePlayers

        with Journal(self._folder, {reply.dialogue for reply in rollouts}) as journal:
            client = Client(**{key: self._roles[key] for key in LIMITS}, journal=journal)
            players = RolePlayers(self._roles, client, self._strategies, self._seed)
            try:
                return asyncio.run(self._ask(players, client, rollouts))
            except BudgetSpent as spent:
                if self._processes == 1:
                    raise
                raise BudgetSpent(f"{spent}, which is the share of each of {self._processes} processes") from None

    async def _ask(self, role_players, client, rollouts: Sequence[Rollout]) -> list[Scores | None]:
        from cso_lab.llm.errors import RoleFailure

        async def score(reply: Rollout) -> Scores | None:
            dialogue = Dialogue(reply.dialogue, reply.scene, reply.description, reply.history)
            history = (*reply.history, Turn(SUPPORTER, reply.text, reply.strategy))
            try:
                return await role_players.judge(dialogue, history, _SAMPLE)
            except RoleFailure as failure:
                self._note(failure)
                return None

        async with client:
            return await gather(score(reply) for reply in rollouts)

    def _note(self, failure: Exception) -> None:
        self._unanswered += 1
        if self._unanswered == 1:
            print(f"the judge gave no scores for a reply, which has no reward of it: {failure}", file=sys.stderr)


def _of_one(roles: Mapping, processes: int) -> Mapping:
    """Returns the roles with the limits that one of so many processes has."""

    def share(value: float | None) -> float | None:
        return None if value is None else value / processes

    caps = {name: share(cap) for name, cap in roles["budget"].items()}
    if caps["calls"] is not None:
        caps["calls"] = int(caps["calls"])
    rates = {name: share(roles[name]) for name in ("requests_per_minute", "tokens_per_minute")}
    return {**roles, **rates, "budget": caps, "max_concurrency": max(1, roles["max_concurrency"] // processes)}
