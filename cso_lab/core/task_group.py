"""Work that does not depend on one another, done at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager

from cso_lab.core.errors import UserError


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A group of tasks. When one fails, the others are cancelled, not paid for, and its error comes out as itself.

    One error is enough to say what is wrong; what the user can put right comes first.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        first = min(failed.exceptions, key=lambda error: not isinstance(error, UserError))
        raise first from first.__cause__


async def gather(questions: Iterable[Awaitable]) -> list:
    """All answers in order."""
    async with task_group() as group:
        tasks = [group.create_task(question) for question in questions]
    return [task.result() for task in tasks]
