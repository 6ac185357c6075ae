"""Sends requests with retries, timeouts, rate limits, a budget and a journal, and counts what they use."""

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
from cso_lab.llm.question import Question
from cso_lab.llm.rate_limiter import RateLimiter
from cso_lab.llm.structured import FormNegotiation, FormRefused, refuses_form
from cso_lab.llm.transport import Reply, Transport

CHARACTERS_A_TOKEN = 4
"""A rough average for English text, used before a call is made and where a server reports no token counts."""
MAX_RETRY_AFTER = 300
"""Seconds. A provider that asks for a longer pause (until its daily quota is renewed, say) stops the run instead."""


class Client:
    """Asks models questions. Use it in an `async with`; its limits and counts hold over all roles and dialogues of one run."""

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
        """`timeout` (of a call) and `max_backoff` (between attempts) are in seconds. `max_attempts` bounds failed calls and replies
        that do not parse together. The limits per minute hold for each provider. `budget` caps calls, tokens and dollars. Without a
        `journal` no reply is saved. `place` is where the client is configured, for error messages. `transport` replaces the default
        `Transport`.
        """
        self.max_concurrency = max_concurrency
        self.usage = journal.usage if journal else Usage()
        self.in_flight = 0
        self._transport = transport or Transport(api_base, api_key_env, place)
        self._slots = asyncio.Semaphore(max_concurrency)
        self._timeout, self.max_attempts, self._max_backoff = timeout, max_attempts, max_backoff
        self._limits = requests_per_minute, tokens_per_minute
        self._rate_limiters: dict[str, RateLimiter] = {}  # by provider
        self._budget, self._journal = Budget(budget, place), journal
        self._parse_failures = journal.parse_failures if journal else Counter()  # by question key
        self._forms = FormNegotiation(self._attempt, self._transport, journal)
        self._calls: set[asyncio.Task] = set()
        self._outages: defaultdict[str, _Outage] = defaultdict(_Outage)  # by model
        # Seconds one question backs off in all before its attempts are used up.
        self._total_backoff = sum(min(max_backoff, 0.5 * 2**number) for number in range(max_attempts - 1))
        self._fatal_error: ServiceError | None = None

    async def __aenter__(self) -> "Client":
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_) -> None:
        """Calls in flight are already paid for, so they are awaited and journaled; after a cancellation for 5 seconds at most."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=min(self._timeout, 5) if kind is asyncio.CancelledError else None)
        for call in self._calls:
            call.cancel()
        await self._transport.__aexit__()

    def check(self, models: Mapping[str, str]) -> None:
        """Raises UserError if no call to one of `models` (by role) could work, or if dollars are capped and a price is unknown."""
        for role, model in models.items():
            self._transport.check(role, model)
        self._budget.check_models(models)

    async def ask(self, question: Question, wanted: Callable[[], bool] = lambda: True) -> object:
        """Returns the parsed reply: the journal's if it holds one, else the model's, with up to `max_attempts` calls.

        `wanted` is called just before a call is made. Raises CancelledError if it returns False; RoleFailure if all attempts failed;
        RefusedError (a RoleFailure) if the model refused, or if no reply of it could be parsed; and UserError if no question can be
        answered now: no key, no such model, a spent budget, a server that is down.
        """
        from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        if self._journal and (reply := self._journal.pop_cached(question.key)) is not None:
            try:
                return question.parse(reply)
            except ParseError:
                pass  # the reply parsed when it was written; the parser has changed since
        backoff = wait_random_exponential(multiplier=0.5, max=self._max_backoff)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.max_attempts),
            wait=lambda state: backoff(state) + (getattr(state.outcome.exception(), "retry_after", None) or 0),
            retry=retry_if_exception_type((ParseError, RetryableError)),
        )
        try:
            async for attempt in retrying:
                with attempt:
                    return await self._forms.attempt(question, attempt.retry_state.attempt_number, wanted)
        except RetryError as error:
            raise self._exhausted(question, error.last_attempt.exception()) from None

    def _exhausted(self, question: Question, last: Exception) -> Exception:
        """Returns the error to raise when all attempts at a question have failed, the last one with `last`."""
        message = f"{question.role}: no usable answer in {self.max_attempts} attempts, last: {one_line(last)}"
        if self._parse_failures[question.key] >= self.max_attempts:
            return RefusedError(message)
        model = question.model["model"]
        # If questions of other dialogues got no reply in the meantime either, the server is at fault and not this question.
        if isinstance(last, RetryableError) and len(self._outages[model].dialogues) > 1:
            self._fatal_error = ServiceError(f"{model} as {message}; no other question was answered meanwhile")
            return self._fatal_error
        return RoleFailure(message)

    async def _attempt(self, question: Question, number: int, wanted: Callable[[], bool]) -> object:
        """Makes one call as soon as the limits allow it and returns the parsed reply.

        A cancelled waiter does not cancel the call; its reply is still journaled.
        """
        limiter = self._rate_limiter(question)
        tokens = estimated_tokens(question.messages) + (question.model["max_tokens"] or 0)
        await limiter.acquire(tokens)
        await self._acquire_slot(limiter)
        try:
            if not wanted():
                raise asyncio.CancelledError
            if self._fatal_error:
                raise self._fatal_error
            self._budget.check(self.usage, self.in_flight)
        except BaseException:
            self._slots.release()
            raise
        self.in_flight += 1
        call = asyncio.create_task(self._call(question, number, limiter, tokens))
        self._calls.add(call)
        call.add_done_callback(self._finish_call)
        return await asyncio.shield(call)

    async def _acquire_slot(self, limiter: RateLimiter) -> None:
        """Acquires a slot at a time at which the provider is not paused."""
        await self._slots.acquire()
        while limiter.paused_for:
            self._slots.release()
            # Jitter, since otherwise all paused calls would be sent at the same moment.
            await asyncio.sleep(limiter.paused_for + random.uniform(0, min(1.0, self._max_backoff)))
            await self._slots.acquire()

    def _finish_call(self, call: asyncio.Task) -> None:
        self._calls.discard(call)
        self.in_flight -= 1
        self._slots.release()
        if not call.cancelled():
            call.exception()  # it is in the journal; retrieved so that asyncio does not warn when every waiter was cancelled

    async def _call(self, question: Question, number: int, limiter: RateLimiter, tokens: int) -> object:
        """Makes one call, journals it and returns the parsed reply. `tokens`: what the rate limiter let through for it."""
        # A new seed after a reply that did not parse: with the same seed the model might give the same reply.
        seed = question.seed + self._parse_failures[question.key]
        call = {"key": question.key, "dialogue": question.dialogue, "role": question.role, "model": question.model["model"]}
        call |= {"seed": seed, "attempt": number}
        if "response_format" in question.model:
            call["response_format"] = question.model["response_format"]["type"]
        start = monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._transport.complete(question.role, question.model, question.messages, seed)
        except Exception as error:
            if isinstance(error, TimeoutError):
                error = RetryableError(f"no answer within {self._timeout:g} s")
            self._record(call | {"fault": one_line(error)})
            if refuses_form(question, error):
                raise FormRefused(one_line(error)) from None
            error = self._handle_failure(limiter, question, error, monotonic() - start)
            if isinstance(error, ServiceError):
                self._fatal_error = error
            raise error from None
        self._outages.pop(question.model["model"], None)
        call |= _usage_fields(question, reply)
        limiter.adjust(call["prompt_tokens"] + call["completion_tokens"] - tokens)
        try:
            if not reply.text.strip():
                raise ParseError(reply.empty_reason)
            answer = question.parse(reply.text)
        except ParseError as error:
            self._parse_failures[question.key] += 1
            self._record(call | {"reply": reply.text, "fault": one_line(error)})
            raise
        self._record(call | {"reply": reply.text})
        self._parse_failures.pop(question.key, None)
        return answer

    def _handle_failure(self, limiter: RateLimiter, question: Question, error: Exception, seconds: float) -> Exception:
        """Returns the error to raise for a call that failed after `seconds`, and pauses the provider if it asked for a pause.

        A RetryableError becomes a ServiceError if the pause is longer than MAX_RETRY_AFTER or if the model has been down too long.
        """
        if not isinstance(error, RetryableError):
            return error
        model_as_role, pause = f"{question.model['model']} as {question.role}", error.retry_after or 0
        if pause > MAX_RETRY_AFTER:
            return ServiceError(f"{model_as_role}: told to wait {pause:.0f} s: {one_line(error)}")
        limiter.pause(pause)
        outage = self._outages[question.model["model"]]
        outage.dialogues.add(question.dialogue)
        outage.questions.add(question.key)
        # What the retries of one question take: with slow failures, such as timeouts, far more than the pauses between them.
        retries = self._total_backoff + (self.max_attempts - 1) * seconds
        # With more failed questions than slots, those still waiting for a slot would only fail in turn, one after another.
        if outage.seconds >= retries and len(outage.questions) > self.max_concurrency:
            return ServiceError(
                f"{model_as_role}: no reply to any question for {outage.seconds:.0f} s, last: {one_line(error)}"
            )
        return error

    def _record(self, call: Mapping) -> None:
        if self._journal:
            self._journal.write(call)
        self.usage.add(call)

    def _rate_limiter(self, question: Question) -> RateLimiter:
        provider = self._transport.check(question.role, question.model["model"])
        if provider not in self._rate_limiters:
            self._rate_limiters[provider] = RateLimiter(*self._limits)
        return self._rate_limiters[provider]


@dataclass
class _Outage:
    """The questions (and their dialogues) that a model has failed to reply to since its last reply."""

    dialogues: set[str] = field(default_factory=set)
    questions: set[str] = field(default_factory=set)
    since: float = field(default_factory=monotonic)

    @property
    def seconds(self) -> float:
        return monotonic() - self.since


def estimated_tokens(messages: list[dict]) -> int:
    """Returns the approximate number of tokens in a prompt, from its number of characters."""
    return sum(len(message["content"]) for message in messages) // CHARACTERS_A_TOKEN


def _usage_fields(question: Question, reply: Reply) -> dict:
    """Returns the fields of a journal line that record what a reply used; estimated tokens are marked as such."""
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens, "cost": reply.cost}
    if None in (reply.prompt_tokens, reply.completion_tokens):
        usage["prompt_tokens"] = estimated_tokens(question.messages)
        usage["completion_tokens"] = len(reply.text) // CHARACTERS_A_TOKEN
        usage["estimated"] = True
    return usage
