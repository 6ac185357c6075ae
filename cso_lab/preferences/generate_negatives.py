"""Fresh supporter replies for a dataset: asked of the configured supporter by the client of the search, with journal and budget."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from cso_lab.config.clients import LIMITS
from cso_lab.core.errors import UserError
from cso_lab.core.records import Dialogue
from cso_lab.core.strategies import StrategySet
from cso_lab.preferences.random import Wanted

# Told apart from what a search asks, so that a reply is a fresh one and not one that the tree holds.
_DRAW = "fresh"


def generate_negatives(wanted: Sequence[Wanted], roles: Mapping, strategies: StrategySet, seed: int, folder: Path) -> list[str]:
    """The replies, in order. What `folder`'s journal holds is not asked again; a UserError when one stays unanswered."""
    from cso_lab.llm.client import Client
    from cso_lab.llm.journal import Journal
    from cso_lab.roles.role_players import RolePlayers

    with Journal(folder, {one.dialogue for one in wanted}) as journal:
        client = Client(**{key: roles[key] for key in LIMITS}, journal=journal)
        return asyncio.run(_asked(RolePlayers(roles, client, strategies, seed), client, wanted))


async def _asked(role_players, client, wanted: Sequence[Wanted]) -> list[str]:
    from tqdm.auto import tqdm

    from cso_lab.core.task_group import gather
    from cso_lab.llm.errors import RoleFailure, ServiceError

    with tqdm(total=len(wanted), desc="fresh replies", unit="reply") as bar:

        async def one(ask: Wanted) -> str:
            dialogue = Dialogue(ask.dialogue, ask.scene, ask.description, ask.history)
            reply = await role_players.supporter(dialogue, ask.history, ask.strategy, _DRAW)
            bar.update()
            return reply

        async with client:
            try:
                return await gather(one(ask) for ask in wanted)
            except (RoleFailure, ServiceError) as failure:
                raise UserError(f"{failure}; the same command goes on from here") from None
