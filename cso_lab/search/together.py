"""Questions that do not depend on one another, asked at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """A group of questions. When one fails, the others are cancelled, not paid for, and its error comes out as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed.exceptions[0].__cause__


async def gather(questions: Iterable[Awaitable]) -> list:
    """All answers in order."""
    async with together() as group:
        tasks = [group.create_task(question) for question in questions]
    return [task.result() for task in tasks]
