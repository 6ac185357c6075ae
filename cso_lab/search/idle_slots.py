"""Leave to ask ahead of time: questions nobody waits for yet go out only while slots are idle."""

import asyncio
from collections import deque

from cso_lab.core.records import Dialogue, Scores, SeekerReply
from cso_lab.search.roles import History, Roles

TICK = 0.01  # seconds between two looks at the idle slots; a question let through has taken its slot by then


class IdleSlots:
    """Hands out idle slots, first come, first served. One a search, over all its dialogues.

    How many are idle, `roles.idle` says; players that do not say have none to spare.
    """

    def __init__(self, roles: Roles):
        self._roles = roles
        self._waiting: deque[asyncio.Future] = deque()
        self._given = 0  # since the last tick: these slots are taken, though `idle` may not show it yet
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that will tick

    def ask(self) -> asyncio.Future:
        """A future that is done as soon as a slot is idle. Cancel it, or set its result, to wait no longer."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append(future)
        if self._loop is not loop:
            self._tick(loop)
        return future

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._given = 0
        while self._waiting and self._given < getattr(self._roles, "idle", 0):
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                self._given += 1
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        self._loop = loop if self._waiting or self._given else None
        if self._loop:
            loop.call_later(TICK, self._tick, loop)


class AskedAhead:
    """Players for work ahead of time: every question waits for an idle slot, until `promote` says that the answers are needed."""

    def __init__(self, roles: Roles, slots: IdleSlots):
        self._roles, self._slots = roles, slots
        self._waiting: set[asyncio.Future] = set()
        self._promoted = False

    def promote(self) -> None:
        """From now on nothing waits for idle slots, what is waiting for one included."""
        self._promoted = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def seeker(self, dialogue: Dialogue, history: History, sample_key: str) -> SeekerReply:
        await self._turn()
        return await self._roles.seeker(dialogue, history, sample_key)

    async def supporter(self, dialogue: Dialogue, history: History, strategy: str, sample_key: str) -> str:
        await self._turn()
        return await self._roles.supporter(dialogue, history, strategy, sample_key)

    async def strategist(self, dialogue: Dialogue, history: History, sample_key: str):
        await self._turn()
        return await self._roles.strategist(dialogue, history, sample_key)

    async def judge(self, dialogue: Dialogue, history: History, sample_key: str) -> Scores:
        await self._turn()
        return await self._roles.judge(dialogue, history, sample_key)

    async def _turn(self) -> None:
        if self._promoted:
            return
        future = self._slots.ask()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)
