"""Sends requests with retries, timeouts, rate limits, a budget and a journal, and counts what they use."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING

from cso_lab.llm.budget import Budget, Usage
from cso_lab.llm.config_location import ROLES, ConfigLocation
from cso_lab.llm.errors import (
    EmptyAnswer,
    InvalidRequest,
    ParseError,
    PromptTooLong,
    RefusedError,
    RetryableError,
    RoleFailure,
    ServiceError,
    TooManyTokens,
    one_line,
)
from cso_lab.llm.in_process import in_process_providers
from cso_lab.llm.journal import Journal
from cso_lab.llm.question import Question
from cso_lab.llm.rate_limiter import MAX_RETRY_AFTER, RateLimiter
from cso_lab.llm.reasoning import ReplyText
from cso_lab.llm.structured import FormNegotiation, FormRefused, refuses_form
from cso_lab.llm.transport import Reply, Transport

if TYPE_CHECKING:
    from cso_lab.llm.batch_api import BatchAPI

CHARACTERS_A_TOKEN = 4
"""A rough average for English text, used before a call is made and where a server reports no token counts."""
MAX_CONSECUTIVE_FAILURES = 3
"""After so many questions in a row without an answer the server is at fault rather than the questions, and sending stops."""
_GREETING = "Hello"
MAX_SHORTENINGS = 20
"""How often a question whose prompt is too long for the model is shortened."""


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
        batch: bool = False,
        batch_poll: float = 60,
        batch_tokens: int | None = None,
        api_base: str | None = None,
        api_key_env: str | None = None,
        journal: Journal | None = None,
        place: ConfigLocation = ROLES,
        transport: Transport | None = None,
    ):
        """`timeout` (of a call) and `max_backoff` (between attempts) are in seconds. `max_attempts` bounds failed calls and replies
        that do not parse together. The limits per minute hold for each provider. `budget` caps calls, tokens and dollars. Without a
        `journal` no reply is saved. `place` is where the client is configured, for error messages. `transport` replaces the default
        `Transport`. `batch`, `batch_poll` and `batch_tokens` are for `batch.ask_in_batches`; the client itself asks one by one.
        """
        self.batch, self.batch_poll, self.batch_tokens = batch, batch_poll, batch_tokens
        self.address, self.place = (api_base, api_key_env, place), place
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
        self._with_more_room = journal.with_more_room if journal else set()  # question keys
        self._without_room: set[str] = set()  # those of them for which the server has no more room
        self._forms = FormNegotiation(self._attempt, self._transport, journal)
        self._calls: set[asyncio.Task] = set()
        self._outages: defaultdict[str, _Outage] = defaultdict(_Outage)  # by model
        self._refusals: defaultdict[str, _Refusals] = defaultdict(_Refusals)  # by model
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

    def check_batches(self, models: Mapping[str, str]) -> None:
        """Raises UserError if the client is to use batches and one of `models` (by role) cannot be asked in them."""
        if self.batch:
            for role, model in models.items():
                self._transport.batch_server(role, model)

    def check_batch_budget(self, questions: Sequence[Question]) -> None:
        """Raises BudgetSpent if the calls for `questions`, asked in batches, could exceed a cap in the worst case."""
        self._budget.check_batches(self.usage, [(one.model, estimated_tokens(one.messages)) for one in questions])

    def batch_api(self, role: str, model: str) -> "BatchAPI":
        """Returns the batch interface of the server of `model`. Raises UserError as `check_batches` does."""
        from cso_lab.llm.batch_api import BatchAPI

        server = self._transport.batch_server(role, model)
        return BatchAPI(f"{self.place.node}.batch", *server, self._timeout, self.max_attempts, self._max_backoff)

    def without_asking(self, question: Question) -> Question:
        """Returns the question with the `response_format` that its model is known to take; no server is asked about it."""
        return self._forms.without_asking(question)

    async def ask(self, question: Question, wanted: Callable[[], bool] = lambda: True) -> object:
        """Returns the parsed reply: the journal's if it holds one, else the model's, with up to `max_attempts` calls.

        A prompt that is too long for the model is shortened if the question allows it, and sent again.

        `wanted` is called just before a call is made. Raises CancelledError if it returns False; RoleFailure if all attempts failed;
        RefusedError (a RoleFailure) if the model refused, or if no reply of it could be parsed; InvalidRequest (a RoleFailure) if the
        server does not take this question; and UserError if no question can be answered now: no key, no such model, a spent budget, a
        server that is down.
        """
        for _ in range(MAX_SHORTENINGS):
            try:
                return await self._ask(question, wanted)
            except PromptTooLong as error:
                shorter = question.shorten(question, error)
                if shorter is None:
                    raise
                question = shorter
        return await self._ask(question, wanted)

    async def _ask(self, question: Question, wanted: Callable[[], bool]) -> object:
        """Returns the parsed reply; raises the errors of `ask`."""
        from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, wait_random_exponential

        if self._journal and (reply := self._journal.pop_cached(question.key)) is not None:
            try:
                return self._parsed(question, reply)
            except ParseError:
                pass  # the reply parsed when it was written; the parser has changed since
        backoff = wait_random_exponential(multiplier=0.5, max=self._max_backoff)

        def pause(state: object, error: Exception) -> float:
            return 0 if isinstance(error, _NoRoom) else backoff(state) + (getattr(error, "retry_after", None) or 0)

        retrying = AsyncRetrying(
            stop=lambda state: state.attempt_number >= self.max_attempts + self._extra_attempts(question),
            wait=lambda state: pause(state, state.outcome.exception()),
            retry=retry_if_exception_type((ParseError, RetryableError, _NoRoom)),
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
        # Other questions were answered between these attempts, so that the server is not at fault.
        if isinstance(last, EmptyAnswer) and self._outages[model].failures[question.key] < self.max_attempts:
            return InvalidRequest(message)
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
        tokens = estimated_tokens(question.messages) + (self._max_tokens(question) or 0)
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
        role = question.counted_as or question.role
        call = {"key": question.key, "dialogue": question.dialogue, "role": role, "model": question.model["model"]}
        call |= {"seed": seed, "attempt": number}
        if question.dropped_turns:
            call["dropped_turns"] = question.dropped_turns
        if "response_format" in question.model:
            call["response_format"] = question.model["response_format"]["type"]
        model = {**question.model, "max_tokens": self._max_tokens(question)}
        start = monotonic()
        try:
            async with asyncio.timeout(self._time_limit(call["model"])):
                reply = await self._transport.complete(question.role, model, question.messages, seed)
        except Exception as error:
            if isinstance(error, TimeoutError):
                error = RetryableError(f"no answer within {self._timeout:g} s")
            self._record(call | {"fault": one_line(error)})
            if refuses_form(question, error):
                raise FormRefused(one_line(error)) from None
            if isinstance(error, TooManyTokens | PromptTooLong) and self._has_more_room(question):
                self._without_room.add(question.key)
                raise _NoRoom(one_line(error)) from None
            error = self._handle_failure(limiter, question, error, monotonic() - start)
            if isinstance(error, InvalidRequest) and not isinstance(error, PromptTooLong):
                error = await self._handle_invalid(question, error)
            if isinstance(error, ServiceError):
                self._fatal_error = error
            raise error from None
        self._outages.pop(question.model["model"], None)
        self._refusals[question.model["model"]].questions.clear()
        call |= _usage_fields(question, reply)
        limiter.adjust(call["prompt_tokens"] + call["completion_tokens"] - tokens)
        text = ReplyText(reply.text, reply.cut)
        call |= {"reply": text.raw} | ({"cut": True} if text.cut else {})
        if text.cut and question.more_room and question.model["max_tokens"] and question.key not in self._with_more_room:
            self._with_more_room.add(question.key)
            # No failure of parsing: with the same seed the reply may be the same, with its end.
            error = _NoRoom(
                f"cut at {self._max_tokens_key(question)}={model['max_tokens']}; asked for again with twice as many"
            )
            self._record(call | {"fault": one_line(error), "more_room": True})
            raise error
        try:
            if not text.strip():
                raise ParseError(reply.empty_reason)
            answer = self._parsed(question, text)
        except ParseError as error:
            self._parse_failures[question.key] += 1
            self._record(call | {"fault": one_line(error)})
            raise
        self._record(call | ({"trimmed": True} if text.cut and question.more_room else {}))
        self._parse_failures.pop(question.key, None)
        self._with_more_room.discard(question.key)
        self._without_room.discard(question.key)
        return answer

    def _time_limit(self, model: str) -> float | None:
        """Returns the seconds that a call may take; None for a model in this process, which does not hang and would only begin again."""
        return None if model.partition("/")[0] in in_process_providers() else self._timeout

    def _parsed(self, question: Question, text: ReplyText) -> object:
        """Returns the answer in a reply. Raises ParseError if there is none, or if the reply was cut and cannot be trimmed."""
        if not text.cut:
            return question.parse(text)
        trimmed = question.trim(text) if question.trim else ""
        if not trimmed:
            raise ParseError(f"a cut reply (finish_reason: length): raise {self._max_tokens_key(question)}")
        return question.parse(trimmed)

    def _max_tokens(self, question: Question) -> int | None:
        """Returns the most tokens that the next reply to a question may have."""
        tokens = question.model["max_tokens"]
        return tokens and tokens * (2 if self._has_more_room(question) else 1)

    def _has_more_room(self, question: Question) -> bool:
        return question.key in self._with_more_room and question.key not in self._without_room

    def _extra_attempts(self, question: Question) -> int:
        """Returns how many attempts a question has because a reply was cut: with more room, and without it if the server has none."""
        return (question.key in self._with_more_room) + (question.key in self._without_room)

    def _max_tokens_key(self, question: Question) -> str:
        return self.place.max_tokens(question.role)

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
        outage.failures[question.key] += 1
        # What the retries of one question take: with slow failures, such as timeouts, far more than the pauses between them.
        retries = self._total_backoff + (self.max_attempts - 1) * seconds
        # With more failed questions than slots, those still waiting for a slot would only fail in turn, one after another.
        if outage.seconds >= retries and len(outage.failures) > self.max_concurrency:
            return ServiceError(
                f"{model_as_role}: no reply to any question for {outage.seconds:.0f} s, last: {one_line(error)}"
            )
        return error

    async def _handle_invalid(self, question: Question, error: InvalidRequest) -> Exception:
        """Returns the error to raise for a question that the server does not take.

        After some in a row it is a ServiceError if the server does not take a plain question either.
        """
        refusals = self._refusals[question.model["model"]]
        refusals.questions.add(question.key)
        if len(refusals.questions) < refusals.bound:
            return error
        refusals.questions.clear()
        refusals.bound *= 2
        return no_question_is_taken(question, error) if await self.takes_a_plain_question(question) is False else error

    async def takes_a_plain_question(self, question: Question) -> bool | None:
        """Asks the model of `question`, with the same parameters, for a reply to a greeting: one small call, which is counted.

        Returns whether it gives one; False if the server does not take that either; None if there is no telling.
        """
        call = {"key": _GREETING, "dialogue": "", "role": question.role, "model": question.model["model"], "attempt": 1}
        model = {name: value for name, value in question.model.items() if name != "response_format"}
        greeting = replace(question, model=model, messages=[{"role": "user", "content": _GREETING}])
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._transport.complete(question.role, model, greeting.messages, question.seed)
        except Exception as error:
            self._record(call | {"fault": one_line(error)})
            return False if isinstance(error, InvalidRequest) else None
        self._record(call | _usage_fields(greeting, reply) | {"reply": reply.text})
        return True

    def _record(self, call: Mapping) -> None:
        if self._journal:
            self._journal.write(call)
        self.usage.add(call)

    def _rate_limiter(self, question: Question) -> RateLimiter:
        provider = self._transport.check(question.role, question.model["model"])
        if provider not in self._rate_limiters:
            self._rate_limiters[provider] = RateLimiter(*self._limits)
        return self._rate_limiters[provider]


class _NoRoom(Exception):
    """A reply was cut, and its question is asked again with more room; or the server has no more, and it is asked again without."""


@dataclass
class _Refusals:
    """The keys of the questions that a model has not taken since its last reply, and how many may be so before that is looked into."""

    questions: set[str] = field(default_factory=set)
    bound: int = MAX_CONSECUTIVE_FAILURES


@dataclass
class _Outage:
    """The questions (and their dialogues) that a model has failed to reply to since its last reply, and how often it has."""

    dialogues: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)  # by question key
    since: float = field(default_factory=monotonic)

    @property
    def seconds(self) -> float:
        return monotonic() - self.since


def no_question_is_taken(question: Question, error: Exception) -> ServiceError:
    """Returns the error for a model that takes neither `question` nor a plain one."""
    return ServiceError(f"{question.model['model']} takes no question at all, not even a greeting: {error}")


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
    return usage | ({"reasoning_tokens": reply.reasoning_tokens} if reply.reasoning_tokens else {})
