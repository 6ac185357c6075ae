"""Asks models until they answer: limits on calls under way and a minute, timeouts, bounded attempts, budget, journal and counts of use."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from cso_lab.llm.budget import Budget, Usage
from cso_lab.llm.config_location import ROLES, ConfigLocation
from cso_lab.llm.errors import ParseError, RefusedError, RetryableError, RoleFailure, ServiceError, one_line
from cso_lab.llm.journal import Journal
from cso_lab.llm.rate_limiter import RateLimiter
from cso_lab.llm.transport import Reply, Transport

CHARACTERS_A_TOKEN = 4
"""Of English text, roughly; used only before a call is made and where a server counts no tokens."""
LONGEST_HOLD = 300
"""Seconds. Who is asked to wait longer than this (a day's quota, say) stops instead."""


@dataclass(frozen=True)
class Question:
    """What is asked of one role. `model`: its config (model, temperature, max_tokens); `parse` raises ParseError."""

    key: str
    dialogue: str
    role: str
    model: Mapping
    messages: list[dict]
    seed: int
    parse: Callable[[str], object]


class Client:
    """One instance a search: its limits and counts are global over all dialogues and roles.

    Use it in an `async with`."""

    def __init__(
        self,
        *,
        max_concurrency: int,
        timeout: float,
        max_attempts: int,
        max_backoff: float = 20,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        budget: Mapping | None = None,
        api_base: str | None = None,
        api_key_env: str | None = None,
        journal: Journal | None = None,
        place: ConfigLocation = ROLES,
        transport: Transport | None = None,
    ):
        """`timeout` and `max_backoff` (before asking again) in seconds; `max_attempts` counts transport faults and garbled replies
        together; the limits a minute hold for each provider; `budget`: caps on calls, tokens and dollars; without a `journal`
        nothing is kept; `place`: where all this is configured, for errors; `transport`: what makes the calls, if not `Transport`."""
        self.max_concurrency = max_concurrency
        self.usage = journal.usage if journal else Usage()
        self.in_flight = 0
        self._transport = transport or Transport(api_base, api_key_env, place)
        self._slots = asyncio.Semaphore(max_concurrency)
        self._timeout, self.max_attempts, self._max_backoff = timeout, max_attempts, max_backoff
        self._limits = requests_per_minute, tokens_per_minute
        self._rate_limiters: dict[str, RateLimiter] = {}  # by provider
        self._budget, self._journal = Budget(budget, place), journal
        self._garbled = journal.garbled if journal else Counter()
        self._calls: set[asyncio.Task] = set()
        self._silences: defaultdict[str, _Silence] = defaultdict(_Silence)  # by model
        # Seconds that somebody who asks again and again pauses in all.
        self._patience = sum(min(max_backoff, 0.5 * 2**number) for number in range(max_attempts - 1))
        self._stopped: ServiceError | None = None

    async def __aenter__(self) -> "Client":
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, kind, *_) -> None:
        """Calls under way have been paid for: they are waited for and kept, but not for long when somebody wants to leave."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=min(self._timeout, 5) if kind is asyncio.CancelledError else None)
        for call in self._calls:
            call.cancel()
        await self._transport.__aexit__()

    def check(self, models: Mapping[str, str]) -> None:
        """A UserError when no call to these models (by role) could work, or their cost could not be capped as asked."""
        for role, model in models.items():
            self._transport.check(role, model)
        self._budget.check_models(models)

    async def ask(self, question: Question, wanted: Callable[[], bool] = lambda: True) -> object:
        """The parsed reply: the journal's, or the model's, which is asked until its reply parses.

        A question that nobody has `wanted` any more by the time its turn comes is not asked: CancelledError. Raises RoleFailure when
        all attempts were in vain; RefusedError where that is the model's own doing, since it replied each time and never usably; and
        UserError when no question can be answered now (no key, no such model, budget spent, a server that answers nobody).
        """
        from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        if self._journal and (reply := self._journal.pop_cached(question.key)) is not None:
            try:
                return question.parse(reply)
            except ParseError:
                pass  # it parsed once; what parses has changed since
        back_off = wait_random_exponential(multiplier=0.5, max=self._max_backoff)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.max_attempts),
            wait=lambda state: back_off(state) + (getattr(state.outcome.exception(), "retry_after", None) or 0),
            retry=retry_if_exception_type((ParseError, RetryableError)),
        )
        try:
            async for attempt in retrying:
                with attempt:
                    return await self._attempt(question, attempt.retry_state.attempt_number, wanted)
        except RetryError as error:
            raise self._in_vain(question, error.last_attempt.exception()) from None

    def _in_vain(self, question: Question, last: Exception) -> Exception:
        """What it means that all attempts at a question failed, the last one by `last`."""
        said = f"{question.role}: no usable answer in {self.max_attempts} attempts, last: {one_line(last)}"
        if self._garbled[question.key] >= self.max_attempts:
            return RefusedError(said)
        model = question.model["model"]
        # When nobody else got a reply in the meantime either, it is not this question that is at fault.
        if isinstance(last, RetryableError) and len(self._silences[model].dialogues) > 1:
            self._stopped = ServiceError(f"{model} as {said}; no other question was answered meanwhile")
            return self._stopped
        return RoleFailure(said)

    async def _attempt(self, question: Question, number: int, wanted: Callable[[], bool]) -> object:
        """Make a call as soon as the limits let it through. Who is cancelled leaves the call behind; it is finished and kept."""
        limiter = self._rate_limiter(question)
        tokens = estimated_tokens(question.messages) + (question.model["max_tokens"] or 0)
        await limiter.turn(tokens)
        await self._slot(limiter)
        try:
            if not wanted():
                raise asyncio.CancelledError
            if self._stopped:
                raise self._stopped
            self._budget.check(self.usage, self.in_flight)
        except BaseException:
            self._slots.release()
            raise
        self.in_flight += 1
        call = asyncio.create_task(self._call(question, number, limiter, tokens))
        self._calls.add(call)
        call.add_done_callback(self._landed)
        return await asyncio.shield(call)

    async def _slot(self, limiter: RateLimiter) -> None:
        """Take a slot, at a time at which the provider is not held."""
        await self._slots.acquire()
        while limiter.held:
            self._slots.release()
            # Jitter: all that were held back would come at once.
            await asyncio.sleep(limiter.held + random.uniform(0, min(1.0, self._max_backoff)))
            await self._slots.acquire()

    def _landed(self, call: asyncio.Task) -> None:
        self._calls.discard(call)
        self.in_flight -= 1
        self._slots.release()
        if not call.cancelled():
            call.exception()  # has been noted; perhaps nobody waits for it any more

    async def _call(self, question: Question, number: int, limiter: RateLimiter, tokens: int) -> object:
        """One call, from sending to the journal."""
        # After nonsense another seed: a model that answered nonsense to one would answer the same nonsense again.
        seed = question.seed + self._garbled[question.key]
        call = {"key": question.key, "dialogue": question.dialogue, "role": question.role, "model": question.model["model"]}
        call |= {"seed": seed, "attempt": number}
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._transport.complete(question.role, question.model, question.messages, seed)
        except Exception as error:
            if isinstance(error, TimeoutError):
                error = RetryableError(f"no answer within {self._timeout:g} s")
            self._note(call | {"fault": one_line(error)})
            error = self._heed(limiter, question, error)
            if isinstance(error, ServiceError):
                self._stopped = error
            raise error from None
        self._silences.pop(question.model["model"], None)
        call |= _use(question, reply)
        limiter.correct(call["prompt_tokens"] + call["completion_tokens"] - tokens)
        try:
            if not reply.text.strip():
                raise ParseError(reply.wordless)
            parsed = question.parse(reply.text)
        except ParseError as error:
            self._garbled[question.key] += 1
            self._note(call | {"reply": reply.text, "fault": one_line(error)})
            raise
        self._note(call | {"reply": reply.text})
        self._garbled.pop(question.key, None)
        return parsed

    def _heed(self, limiter: RateLimiter, question: Question, error: Exception) -> Exception:
        """What a failed call means beyond its question; holds all calls to a provider that asks for a pause."""
        if not isinstance(error, RetryableError):
            return error
        who, pause = f"{question.model['model']} as {question.role}", error.retry_after or 0
        if pause > LONGEST_HOLD:
            return ServiceError(f"{who}: told to wait {pause:.0f} s: {one_line(error)}")
        limiter.hold(pause)
        silence = self._silences[question.model["model"]]
        silence.dialogues.add(question.dialogue)
        silence.questions.add(question.key)
        # More questions than can be under way: those that wait for their turn would only fare the same, one after another.
        if silence.seconds >= self._patience and len(silence.questions) > self.max_concurrency:
            return ServiceError(f"{who}: no reply to any question for {silence.seconds:.0f} s, last: {one_line(error)}")
        return error

    def _note(self, call: Mapping) -> None:
        if self._journal:
            self._journal.write(call)
        self.usage.add(call)

    def _rate_limiter(self, question: Question) -> RateLimiter:
        provider = self._transport.check(question.role, question.model["model"])
        if provider not in self._rate_limiters:
            self._rate_limiters[provider] = RateLimiter(*self._limits)
        return self._rate_limiters[provider]


@dataclass
class _Silence:
    """What a model has been asked since it last replied, and not replied to."""

    dialogues: set[str] = field(default_factory=set)
    questions: set[str] = field(default_factory=set)
    since: float = field(default_factory=monotonic)

    @property
    def seconds(self) -> float:
        return monotonic() - self.since


def estimated_tokens(messages: list[dict]) -> int:
    """Tokens of a prompt, before any model has counted them."""
    return sum(len(message["content"]) for message in messages) // CHARACTERS_A_TOKEN


def _use(question: Question, reply: Reply) -> dict:
    """The part of a journal line that says what a reply took."""
    use = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens, "cost": reply.cost}
    if None in (reply.prompt_tokens, reply.completion_tokens):
        use["prompt_tokens"] = estimated_tokens(question.messages)
        use["completion_tokens"] = len(reply.text) // CHARACTERS_A_TOKEN
        use["estimated"] = True
    return use
