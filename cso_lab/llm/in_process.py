"""Models that answer in this process. A package registers them as a provider; the client addresses them as PROVIDER/NAME."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from cso_lab.core.errors import UserError


class InProcessModels(Protocol):
    """The models of one provider, by name. Calls to them are free and need no network."""

    names: Sequence[str]

    def answer(
        self, name: str, messages: Sequence[Mapping], seed: int | None
    ) -> tuple[str, int, int] | Awaitable[tuple[str, int, int, bool]]:
        """Returns (reply, number of prompt tokens, number of reply tokens); one to wait for also says whether the reply was cut.

        Raises litellm's CustomLLMError if the model cannot reply to such messages."""

    def litellm_handler(self) -> object:
        """Returns the same models as a litellm.CustomLLM."""


_loaders: dict[str, Callable[[], InProcessModels]] = {}


def register_in_process(provider: str, load: Callable[[], InProcessModels]) -> None:
    """Registers the models of `provider`. `load` is called when the registered models are first needed."""
    _loaders[provider] = load


def in_process_providers() -> dict[str, InProcessModels]:
    """Returns the registered models by provider."""
    return {provider: load() for provider, load in _loaders.items()}


Messages = Sequence[Mapping]
# How long no new question must have come before those that wait are answered, in seconds.
_QUIET = 0.02


class OwnModel:
    """The model of the cell itself, as supporter of its own search: self/supporter.

    What many dialogues ask at the same time is answered in one batch. The model is there within `serving` alone.
    """

    names = ("supporter",)

    def __init__(self):
        self._reply, self._batch_size = None, 1
        self._waiting: list[tuple[Messages, int, asyncio.Future]] = []
        self._work: asyncio.Task | None = None

    @contextmanager
    def serving(
        self, reply: Callable[[Sequence[Messages], Sequence[int]], list[tuple[str, int, int, bool]]], batch_size: int
    ) -> Iterator[None]:
        """Answers by `reply` (conversations, their seeds) within the context, in batches of at most `batch_size`."""
        self._reply, self._batch_size = reply, batch_size
        try:
            yield
        finally:
            self._reply, self._work = None, None
            self._waiting.clear()

    async def answer(self, name: str, messages: Messages, seed: int | None) -> tuple[str, int, int, bool]:
        """See `InProcessModels`. Raises UserError if no model is served, or it fails."""
        if self._reply is None:
            raise UserError(f"self/{name} is the cell's own model, which plays the supporter of roles=self alone")
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, seed or 0, future))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer_all())
        return await future

    async def _answer_all(self) -> None:
        while self._waiting:
            count = 0
            while count < len(self._waiting) < self._batch_size:
                count = len(self._waiting)
                await asyncio.sleep(_QUIET)
            batch, self._waiting = self._waiting[: self._batch_size], self._waiting[self._batch_size :]
            conversations, seeds, futures = zip(*batch, strict=True)
            try:
                replies = await asyncio.to_thread(self._reply, conversations, seeds)
            except Exception as error:
                failure = error if isinstance(error, UserError) else UserError(f"the cell's own model as supporter: {error!r}")
                for future in futures:
                    if not future.done():
                        future.set_exception(failure)
                continue
            for future, reply in zip(futures, replies, strict=True):
                if not future.done():
                    future.set_result(reply)

    def litellm_handler(self) -> object:
        """See `InProcessModels`. It is never called through litellm."""
        from litellm import CustomLLM

        return CustomLLM()


OWN_MODEL = OwnModel()
OWN_SUPPORTER = "self/supporter"
register_in_process("self", lambda: OWN_MODEL)
