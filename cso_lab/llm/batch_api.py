"""Files and batches of a server that speaks OpenAI's protocol, over HTTP.

Not by the openai package: it would add headers that the environment holds for OpenAI (OPENAI_CUSTOM_HEADERS, OPENAI_ORG_ID), and a
server of one's own must get none of them.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cso_lab.llm.errors import MAX_RETRY_AFTER, RetryableError, RoleFailure, ServiceError, error_of, error_text, fault, one_line

UNDER_WAY = ("validating", "in_progress", "finalizing", "cancelling")
ENDED = ("completed", "expired", "cancelled", "failed")
_NAME = "cso_lab"  # key in a batch's metadata
_NOT_EXECUTED = ("batch_expired", "batch_cancelled")  # codes of requests that the end of their batch came before


@dataclass(frozen=True)
class BatchState:
    """What the provider says of a batch: `finished` requests so far, `files` with results, and why it failed (`problem`), if it did."""

    status: str
    finished: int
    files: tuple[str, ...]
    problem: str


class BatchAPI:
    """The batches of one server. Use it in a `with`.

    Requests that cannot be sent are tried again a bounded number of times. Raises ServiceError if that does not help, and at once if it
    cannot: no rights, no credit, no batch interface.
    """

    def __init__(self, key: str, base: str, headers: Mapping[str, str], timeout: float, max_attempts: int, max_backoff: float):
        """`key`: the config key that turns batches on; `base`: the base URL; `timeout` and `max_backoff` are in seconds."""
        import httpx

        self._key, self._base, self._http = key, base, httpx.Client(headers=dict(headers), timeout=timeout)
        self._max_attempts, self._max_backoff = max_attempts, max_backoff

    def __enter__(self) -> "BatchAPI":
        return self

    def __exit__(self, *_) -> None:
        self._http.close()

    def submit(self, name: str, requests: bytes) -> str:
        """Submits the requests, JSON Lines, as a batch with this unique name and returns its id."""
        upload = {"data": {"purpose": "batch"}, "files": {"file": (f"{name}.jsonl", requests, "application/jsonl")}}
        file = self._retried(lambda: self._object("POST", "/files", **upload))["id"]
        batch = {
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {_NAME: name},
        }
        failed = False

        def create() -> str:
            # A request without an answer may have made the batch all the same.
            nonlocal failed
            known = self.find(name) if failed else None
            failed = True
            return known or self._object("POST", "/batches", json=batch)["id"]

        return self._retried(create)

    def find(self, name: str) -> str | None:
        """Returns the id of the batch that was submitted with this name; None if there is none."""
        after: dict[str, str] = {}
        while True:
            page = self._retried(lambda: self._object("GET", "/batches", "data", params={"limit": "100", **after}))  # noqa: B023
            for batch in page["data"]:
                if (batch.get("metadata") or {}).get(_NAME) == name:
                    return batch["id"]
            if not page.get("has_more") or not page["data"]:
                return None
            after = {"after": page["data"][-1]["id"]}

    def state(self, batch_id: str) -> BatchState:
        """Returns the state of a batch. Tries once: raises RetryableError if there is no answer."""
        batch = self._object("GET", f"/batches/{batch_id}", "status")
        if batch["status"] not in (*UNDER_WAY, *ENDED):
            raise RetryableError(f"batch {batch_id} has a status without a meaning: {one_line(batch['status'])}")
        counts = batch.get("request_counts") or {}
        errors = (batch.get("errors") or {}).get("data") or [{"message": "no reason given"}]
        place = f" (line {errors[0]['line']})" if errors[0].get("line") else ""
        return BatchState(
            batch["status"],
            (counts.get("completed") or 0) + (counts.get("failed") or 0),
            tuple(file for file in (batch.get("output_file_id"), batch.get("error_file_id")) if file),
            one_line(error_text(errors[0])) + place,
        )

    def results(self, state: BatchState) -> Iterator[tuple[str, dict]]:
        """Yields (custom_id, line) for every request of a batch that was executed; lines that cannot be read are left out."""
        for file in state.files:
            for line in self._retried(lambda: self._request("GET", f"/files/{file}/content")).splitlines():  # noqa: B023
                try:
                    result = json.loads(line)
                    key, code = str(result["custom_id"]), (result.get("error") or {}).get("code")
                except (ValueError, TypeError, KeyError, AttributeError):
                    continue
                if code not in _NOT_EXECUTED:
                    yield key, result

    def _object(self, method: str, path: str, key: str = "id", **content) -> dict:
        """Returns the JSON object that answers a request; it has `key`."""
        payload = self._request(method, path, **content)
        try:
            answer = json.loads(payload)
            answer[key]
            return answer
        except (ValueError, TypeError, KeyError, IndexError):
            start = one_line(payload[:200].decode(errors="replace"))
            raise RetryableError(f"{path}: not an answer of a batch interface: {start}") from None

    def _request(self, method: str, path: str, **content) -> bytes:
        import httpx

        try:
            response = self._http.request(method, self._base + path, **content)
        except (httpx.HTTPError, OSError) as error:
            raise RetryableError(f"{method} {self._base}{path}: {one_line(error)}") from None
        status = response.status_code
        if status == 200:
            return response.content
        reason = one_line(f"{status}: {error_of(response.content)}")
        if status in (404, 405, 501) and path in ("/files", "/batches"):
            raise ServiceError(f"{self._base} has no batch interface ({method} {path}: {reason}): give {self._key}=false")
        if status == 404:
            raise ServiceError(
                f"{self._base}{path}: {reason}; if it was submitted with another key or address, give that; else delete the lines of"
                " this batch from calls.jsonl, and its questions are asked anew"
            )
        error = fault("server of batches", self._base, status, error_of(response.content), response.headers)
        too_long = isinstance(error, RetryableError) and (error.retry_after or 0) > MAX_RETRY_AFTER
        raise ServiceError(str(error)) if too_long or isinstance(error, RoleFailure) else error

    def _retried(self, attempt: Callable):
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        backoff = wait_random_exponential(multiplier=0.5, max=self._max_backoff)
        retrying = Retrying(
            stop=stop_after_attempt(self._max_attempts),
            wait=lambda state: backoff(state) + (state.outcome.exception().retry_after or 0),
            retry=retry_if_exception_type(RetryableError),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except RetryableError as error:
            raise ServiceError(f"{one_line(error)}; the same command goes on") from None
