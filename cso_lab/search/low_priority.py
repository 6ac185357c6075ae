"""Low-priority questions: those whose answers are not needed yet are asked only while slots for calls are idle."""

import asyncio
from collections import deque
from collections.abc import Mapping

from cso_lab.core.records import Dialogue, Scores, SeekerReply
from cso_lab.search.roles import History, Roles

POLL_INTERVAL = 0.01  # seconds between two checks for idle slots; a question that was granted a slot has taken it by then


class LowPriorityQueue:
    """Grants idle slots in first-in, first-out order. One instance serves all dialogues of a search.

    `roles.idle` says how many slots are idle; role players without that property never have an idle slot.
    """

    def __init__(self, roles: Roles):
        self._roles = roles
        self._waiting: deque[asyncio.Future] = deque()
        self._granted = 0  # slots granted since the last poll: they are in use, though `idle` may not count them yet
        self._loop: asyncio.AbstractEventLoop | None = None  # the event loop that will poll next

    def request_slot(self) -> asyncio.Future:
        """Returns a future that is done as soon as a slot is idle. Cancel it, or set its result, to leave the queue."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append(future)
        if self._loop is not loop:
            self._poll(loop)
        return future

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        self._granted = 0
        while self._waiting and self._granted < getattr(self._roles, "idle", 0):
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                self._granted += 1
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        self._loop = loop if self._waiting or self._granted else None
        if self._loop:
            loop.call_later(POLL_INTERVAL, self._poll, loop)


class LowPriorityRoles:
    """Role players whose questions each wait for an idle slot, until `promote` is called because the answers are needed."""

    def __init__(self, roles: Roles, queue: LowPriorityQueue):
        self._roles, self._queue = roles, queue
        self._waiting: set[asyncio.Future] = set()
        self._promoted = False

    def promote(self) -> None:
        """Asks all waiting questions now, and later ones without waiting."""
        self._promoted = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def seeker(self, dialogue: Dialogue, history: History, sample_key: str) -> SeekerReply:
        """See `Roles.seeker`."""
        await self._wait_for_slot()
        return await self._roles.seeker(dialogue, history, sample_key)

    async def supporter(self, dialogue: Dialogue, history: History, strategy: str, sample_key: str) -> str:
        """See `Roles.supporter`."""
        await self._wait_for_slot()
        return await self._roles.supporter(dialogue, history, strategy, sample_key)

    async def strategist(self, dialogue: Dialogue, history: History, sample_key: str) -> Mapping[str, int]:
        """See `Roles.strategist`."""
        await self._wait_for_slot()
        return await self._roles.strategist(dialogue, history, sample_key)

    async def judge(self, dialogue: Dialogue, history: History, sample_key: str) -> Scores:
        """See `Roles.judge`."""
        await self._wait_for_slot()
        return await self._roles.judge(dialogue, history, sample_key)

    async def _wait_for_slot(self) -> None:
        if self._promoted:
            return
        future = self._queue.request_slot()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)
