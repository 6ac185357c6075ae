"""Concurrent asyncio tasks that are cancelled together when one of them fails."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager

from cso_lab.core.errors import UserError


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Yields an asyncio.TaskGroup. If a task fails, the others are cancelled, so that no request of theirs is paid for.

    Raises the task's own error instead of an exception group; of several errors the first UserError, if there is one.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        first = min(errors.exceptions, key=lambda error: not isinstance(error, UserError))
        raise first from first.__cause__


async def gather(awaitables: Iterable[Awaitable]) -> list:
    """Returns the results of coroutines, run concurrently, in their order. Raises as `task_group` does if one fails."""
    async with task_group() as group:
        tasks = [group.create_task(awaitable) for awaitable in awaitables]
    return [task.result() for task in tasks]
