"""Generates supporter replies for CSO-Random with the configured supporter model; journal and budget are as in the search."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cso_lab.config.clients import LIMITS
from cso_lab.core.errors import UserError
from cso_lab.core.records import SUPPORTER, Dialogue
from cso_lab.core.strategies import StrategySet
from cso_lab.core.task_group import gather
from cso_lab.preferences.random import ReplyRequest

if TYPE_CHECKING:
    from cso_lab.llm.client import Client, Question
    from cso_lab.roles.role_players import RolePlayers

# Part of a call's key. The search has no calls with it, so that a new reply is sampled instead of one that the tree has already.
_SAMPLE = "fresh"


def generate_negatives(
    requests: Sequence[ReplyRequest], roles: Mapping, strategies: StrategySet, seed: int, folder: Path
) -> list[str]:
    """Returns the replies in the order of the requests; replies in the journal of `folder` are not requested again.

    `roles` is the configuration of the role players and their client. Raises UserError if a reply cannot be had.
    """
    from cso_lab.llm.batch import ask_in_batches
    from cso_lab.llm.client import Client
    from cso_lab.llm.journal import Journal
    from cso_lab.roles.role_players import RolePlayers

    with Journal(folder, {request.dialogue for request in requests}) as journal:
        client = Client(**{key: roles[key] for key in LIMITS}, journal=journal)
        if client.batch or journal.batches:
            ask_in_batches(client, journal, _questions(requests, roles, strategies, seed), "fresh replies")
        replies = asyncio.run(_replies(RolePlayers(roles, client, strategies, seed), client, requests))
        if cut := journal.usage.cut.total():
            trimmed = journal.usage.trimmed.total()
            print(
                f"fresh replies: {cut} ended at roles.supporter.max_tokens, {trimmed} of them used up to their last whole sentence"
            )
        return replies


def check_fresh_replies(roles: Mapping) -> None:
    """Raises UserError if the replies are to be asked for in batches and the supporter's model cannot be."""
    from cso_lab.llm.client import Client

    Client(**{key: roles[key] for key in LIMITS}).check_batches({SUPPORTER: roles[SUPPORTER]["model"]})


class _Collector:
    """Takes the place of a Client: keeps the questions instead of asking them."""

    max_concurrency = 0

    def __init__(self):
        self.questions: list[Question] = []

    def check(self, models: Mapping[str, str]) -> None:
        """Does nothing: no model is called."""

    async def ask(self, question: "Question", wanted: Callable[[], bool]) -> str:
        """Returns no words."""
        self.questions.append(question)
        return ""


def _questions(requests: Sequence[ReplyRequest], roles: Mapping, strategies: StrategySet, seed: int) -> "list[Question]":
    """Returns the questions that ask for the replies."""
    from cso_lab.roles.role_players import RolePlayers

    collector = _Collector()
    role_players = RolePlayers(roles, collector, strategies, seed)

    async def ask() -> None:
        await gather(_reply(role_players, request) for request in requests)

    asyncio.run(ask())
    return collector.questions


async def _reply(role_players: "RolePlayers", request: ReplyRequest) -> str:
    dialogue = Dialogue(request.dialogue, request.scene, request.description, request.history)
    return await role_players.supporter(dialogue, request.history, request.strategy, _SAMPLE)


async def _replies(role_players: "RolePlayers", client: "Client", requests: Sequence[ReplyRequest]) -> list[str]:
    from tqdm.auto import tqdm

    from cso_lab.llm.errors import RoleFailure, ServiceError

    with tqdm(total=len(requests), desc="fresh replies", unit="reply") as bar:

        async def reply_to(request: ReplyRequest) -> str:
            reply = await _reply(role_players, request)
            bar.update()
            return reply

        async with client:
            try:
                return await gather(reply_to(request) for request in requests)
            except (RoleFailure, ServiceError) as failure:
                raise UserError(f"{failure}; the same command goes on from here") from None
