"""Asks independent questions through a provider's batch interface, at half price and within a day, and journals the replies.

What is submitted is in the journal before anybody waits for it, so that a run that is killed, interrupted or asleep for hours takes up its
batches again. A reply from a batch is parsed, journaled and counted by a client, as one of a single call is.
"""

import asyncio
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from uuid import uuid4

from cso_lab.core.errors import UserError
from cso_lab.core.task_group import gather
from cso_lab.llm import prices
from cso_lab.llm.batch_api import ENDED, BatchAPI, BatchState
from cso_lab.llm.client import Client, Question, estimated_tokens
from cso_lab.llm.errors import RetryableError, RoleFailure, ServiceError, error_in, error_text, one_line
from cso_lab.llm.journal import Journal
from cso_lab.llm.transport import Reply, Transport

MAX_REQUESTS, MAX_BYTES = 50_000, 200_000_000
"""OpenAI's limits of one batch."""


def ask_in_batches(client: Client, journal: Journal, questions: Sequence[Question], title: str) -> None:
    """Has `questions` answered in batches as far as they are open; afterwards the client finds the replies in the journal. Does nothing
    without `client.batch`.

    Batches of an earlier run that hold some of the questions are waited for and not submitted again. What has been in a batch and got no
    usable reply there (an error, the batch expired) is left open, to be asked singly.

    `journal` is the client's; `title` labels the progress bar. Raises BudgetSpent before anything is submitted if the replies could
    exceed a cap, UserError if the provider refused a batch or it was cancelled there, or if a batch that holds some of the questions is
    under way and `client.batch` is False, and ServiceError if the provider cannot be reached.
    """
    # A question whose reply did not parse, or was cut, has been asked, and paid for, already.
    asked = journal.answers.keys() | +journal.parse_failures | journal.with_more_room
    unasked = {one.key: one for one in questions if one.key not in asked}
    if not client.batch:
        return _check_none_under_way(client, journal, unasked)
    if not unasked:
        return
    models = {(one.role, one.model["model"]) for one in unasked.values()}
    for role, model in models:
        client.check_batches({role: model})
    # All models of a client are on one server.
    with client.batch_api(*models.pop()) as api:
        _Batches(client, journal, unasked, api).run(title)


def _check_none_under_way(client: Client, journal: Journal, questions: Mapping[str, Question]) -> None:
    """Raises UserError if some of the questions are in a batch under way: asked singly, they would be paid for twice."""
    for batch in journal.batches.values():
        if "id" in batch and (count := sum(key in questions for key in batch["pending"])):
            raise UserError(
                f"batch {batch['id']} is under way with {count} of these questions: give {client.place.node}.batch=true to wait for"
                f" it, or delete its lines from {journal.path} to ask them again"
            )


class _Batches:
    """The batches of some questions of one client: those under way, and those still to be submitted."""

    def __init__(self, client: Client, journal: Journal, questions: Mapping[str, Question], api: BatchAPI):
        """`questions`: those without a reply in the journal, by key."""
        self._client, self._journal, self._questions, self._api = client, journal, questions, api
        self._states: dict[str, BatchState] = {}  # of those under way, by name
        self._read = 0  # questions of batches that have ended
        self._problems: list[str] = []

    def run(self, title: str) -> None:
        """Submits what is to be submitted, and waits until every batch has ended and its replies are journaled."""
        from tqdm.auto import tqdm

        self._find_lost_batches()
        waiting = [name for name, batch in self._journal.batches.items() if self._ours(batch["pending"])]
        under_way = {key for name in waiting for key in self._ours(self._journal.batches[name]["pending"])}
        singly = {key for batch in self._journal.batches.values() for key in _read_keys(batch)}
        fresh = [one for key, one in self._questions.items() if key not in under_way | singly]
        if fresh:
            self._client.check_batch_budget([*(self._questions[key] for key in under_way), *fresh])
        queue = deque(_split(fresh, self._client.batch_tokens))
        try:
            with tqdm(total=len(under_way) + len(fresh), desc=f"{title}, in batches", unit="question") as bar:
                self._wait(waiting, queue, bar)
        except KeyboardInterrupt:
            if ids := [self._journal.batches[name]["id"] for name in self._states]:
                print(f"{', '.join(ids)}: under way at the provider; the same command picks it up", file=sys.stderr)
            raise
        if self._problems:
            raise UserError(self._problems[0])

    def _ours(self, keys: Sequence[str]) -> list[str]:
        return [key for key in keys if key in self._questions]

    def _find_lost_batches(self) -> None:
        """Takes up the batches that were being submitted when a run was killed: the provider has them or not, which their name tells."""
        for name, batch in list(self._journal.batches.items()):
            if "id" in batch or not self._ours(batch["pending"]):
                continue
            if batch_id := self._api.find(name):
                self._journal.write({"batch": name, "id": batch_id})
            else:
                self._journal.write({"batch": name, "status": "not submitted", "pending": []})

    def _wait(self, waiting: list[str], queue: deque[list[Question]], bar) -> None:
        self._states = {name: BatchState("validating", 0, (), "") for name in waiting}
        failures, longest = 0, self._client.batch_poll
        pause = longest / 16
        while queue or self._states:
            while queue and self._has_room(queue[0]):
                self._submit(queue.popleft(), bar)
            self._show(bar)
            time.sleep(pause)
            read = self._read
            failures = failures + 1 if (error := self._look()) else 0
            if failures >= self._client.max_attempts:
                raise ServiceError(f"{one_line(error)}; the batch is under way, and the same command picks it up")
            pause = min(longest, pause * 2) if self._read == read else longest / 16
        self._show(bar)

    def _look(self) -> RetryableError | None:
        """Looks at every batch under way, and reads those that have ended. Returns the error if the provider does not answer."""
        for name in list(self._states):
            try:
                self._states[name] = state = self._api.state(self._journal.batches[name]["id"])
            except RetryableError as error:
                return error
            if state.status in ENDED:
                self._end(name, state)
        return None

    def _has_room(self, questions: list[Question]) -> bool:
        """Returns whether a batch of `questions` may be submitted now: `batch_tokens` limits what is under way of a model."""
        if self._client.batch_tokens is None:
            return True
        model = questions[0].model["model"]
        batches = [batch for name in self._states if (batch := self._journal.batches[name])["model"] == model]
        tokens = sum(batch["tokens"] for batch in batches) + _prompt_tokens(questions)
        return not batches or tokens <= self._client.batch_tokens

    def _submit(self, questions: list[Question], bar) -> None:
        """Submits one batch; its questions are in the journal before, and its id after it."""
        name, model = uuid4().hex, questions[0].model["model"]
        lines = asyncio.run(self._lines(questions))
        keys = [one.key for one in questions]
        self._journal.write({"batch": name, "model": model, "tokens": _prompt_tokens(questions), "pending": keys})
        batch_id = self._api.submit(name, lines)
        self._journal.write({"batch": name, "id": batch_id})
        self._states[name] = BatchState("validating", 0, (), "")
        bar.write(f"batch {batch_id}: {len(questions)} questions to {model}", file=sys.stderr)

    async def _lines(self, questions: Sequence[Question]) -> bytes:
        """Returns the file of a batch: for each question the request that a single call would send."""
        transport, lines = _Unsent(*self._client.address), []
        for one in questions:
            request = {"custom_id": one.key, "method": "POST", "url": "/v1/chat/completions"}
            request["body"] = await transport.body(self._client.without_asking(one))
            lines.append(json.dumps(request).encode() + b"\n")
        return b"".join(lines)

    def _end(self, name: str, state: BatchState) -> None:
        """Journals the replies of a batch that has ended."""
        del self._states[name]
        batch = self._journal.batches[name]
        keys = self._ours(batch["pending"])
        results = dict(self._api.results(state))
        asyncio.run(self._journal_results([self._questions[key] for key in keys if key in results], results))
        # Questions of another run with this journal stay pending until that run is started again.
        known = self._questions.keys() | self._journal.answers.keys()
        others = [key for key in batch["pending"] if key in results and key not in known]
        self._journal.write({"batch": name, "status": state.status, "pending": others})
        self._read += len(keys)
        node = self._client.place.node
        advice = f"put it right, or give {node}.batch=false; the same command goes on"
        if "token_limit_exceeded" in state.problem:
            advice = f"give {node}.batch_tokens=N to have no more than N tokens under way; the same command goes on"
        if state.status == "failed":
            self._problems.append(f"the provider refused batch {batch['id']}: {state.problem}: {advice}")
        elif state.status == "cancelled":
            count = f"{len(results)} of {len(batch['keys'])} replies are kept"
            self._problems.append(f"batch {batch['id']} was cancelled: {count}; the same command submits the rest")

    async def _journal_results(self, questions: Sequence[Question], results: Mapping[str, dict]) -> None:
        """Has a client without limits parse, count and journal the results of a batch, which are paid for already."""
        client, journal = self._client, self._journal
        transport = _Results(results, *client.address)
        reader = Client(
            max_concurrency=1,  # they are here already
            timeout=60,
            max_attempts=1,
            journal=journal,
            place=client.place,
            transport=transport,
        )

        async def read(question: Question) -> None:
            _key.set(question.key)
            try:
                await reader.ask(replace(question, form=None), partial(transport.check_unread, question.key))
                journal.keep(question.key, *transport.texts.pop(question.key))
            except RoleFailure:
                pass  # it is journaled, and the question is asked singly

        async with reader:
            await gather(read(question) for question in questions)

    def _show(self, bar) -> None:
        statuses = Counter(state.status for state in self._states.values())
        bar.set_postfix_str(", ".join(f"{number} {status}" for status, number in statuses.items()), refresh=False)
        bar.n = self._read + sum(state.finished for state in self._states.values())
        bar.refresh()


def _read_keys(batch: Mapping) -> list[str]:
    """Returns the keys of the questions that have been asked in a batch and of which nothing more will come."""
    pending = set(batch["pending"])
    return [key for key in batch["keys"] if key not in pending] if batch.get("status") in ("completed", "expired") else []


def _prompt_tokens(questions: Sequence[Question]) -> int:
    return sum(estimated_tokens(one.messages) for one in questions)


def _split(questions: Sequence[Question], max_tokens: int | None) -> Iterator[list[Question]]:
    """Yields the questions of each batch: of one model, and within the provider's limits and `max_tokens`."""
    by_model: dict[str, list[Question]] = {}
    for one in questions:
        by_model.setdefault(one.model["model"], []).append(one)
    for group in by_model.values():
        batch, size, tokens = [], 0, 0
        for one in group:
            # What else a request holds (parameters, a schema) is far less than 4,000 bytes.
            length, more = len(json.dumps(one.messages)) + 4000, estimated_tokens(one.messages)
            full = len(batch) == MAX_REQUESTS or size + length > MAX_BYTES
            if batch and (full or (max_tokens is not None and tokens + more > max_tokens)):
                yield batch
                batch, size, tokens = [], 0, 0
            batch.append(one)
            size, tokens = size + length, tokens + more
        yield batch


class _Body(Exception):
    """Carries the body of a request that is not sent."""


class _Unsent(Transport):
    """Returns the bodies of requests instead of sending them."""

    async def body(self, question: Question) -> Mapping:
        try:
            await self.complete(question.role, question.model, question.messages, question.seed)
        except _Body as body:
            return body.args[0]
        raise UserError(f"{question.model['model']}: a call is no chat completion, so that it cannot be part of a batch")

    async def _post(self, role: str, name: str, body: Mapping) -> bytes:
        raise _Body(body)


_key: ContextVar[str] = ContextVar("key of the question that is asked")


class _Results(Transport):
    """Answers the question `_key` with its line of a batch's results, at the price of batches.

    Whatever is wrong with a line is a RoleFailure of its question alone. `texts` holds the replies by key, each with
    whether it was cut.
    """

    def __init__(self, results: Mapping[str, dict], *address):
        super().__init__(*address)
        self._results, self.texts = dict(results), {}

    def check_unread(self, key: str) -> bool:
        """Returns True if the reply to a question has not been read yet, else raises RoleFailure: one that was cut is asked for again,
        singly, with more room."""
        if key not in self._results:
            raise RoleFailure("no second reply in a batch")
        return True

    async def complete(self, role: str, model: Mapping, messages: list[dict], seed: int) -> Reply:
        """See `Transport.complete`."""
        try:
            reply = await super().complete(role, model, messages, seed)
        except (RetryableError, ServiceError) as error:
            raise RoleFailure(f"{role}: in a batch: {one_line(error)}") from None
        self.texts[_key.get()] = reply.text, reply.cut
        price = prices.batch_cost(model["model"], reply.prompt_tokens or 0, reply.completion_tokens or 0)
        return replace(reply, cost=price)

    async def _post(self, role: str, name: str, body: Mapping) -> bytes:
        result = self._results.pop(_key.get())
        response = result.get("response")
        response = response if isinstance(response, dict) else {}
        error = result.get("error") or error_in(response.get("body"))
        if error or response.get("status_code") != 200:
            raise RetryableError(error_text(error or response))
        return json.dumps(response.get("body")).encode()
