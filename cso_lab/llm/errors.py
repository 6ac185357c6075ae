"""Errors of LLM calls, how responses are mapped to them, and the removal of API keys from messages."""

import html
import json
import os
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time

from cso_lab.core.errors import UserError
from cso_lab.llm.parameters import refuses_parameters
from cso_lab.llm.prompt_limits import Overflow, overflow_in


class RoleFailure(Exception):
    """One question got no usable answer within its attempts, so the dialogue it belongs to cannot be continued."""


class ParseError(ValueError):
    """A reply does not have the form that its role prescribes. The question is asked again, a bounded number of times."""


class RefusedError(RoleFailure):
    """The model refused this question for its content, or none of its replies could be parsed."""


class InvalidRequest(RoleFailure):
    """The server does not take this request, for a reason that may hold for it alone or for every request.

    `message`: the server's own words.
    """

    def __init__(self, text: str, message: str = ""):
        super().__init__(text)
        self.message = message


class PromptTooLong(InvalidRequest):
    """The prompt of this request is too long for the model, by `overflow`."""

    def __init__(self, text: str, message: str, overflow: Overflow):
        super().__init__(text, message)
        self.overflow = overflow


class ServiceError(UserError):
    """Every further question would fail as well: an account without credit or rights, no such model, a server that is down.

    No more requests are sent. All answers are kept, and the same command continues from there.
    """


class TooManyTokens(ServiceError):
    """The model cannot write a reply of as many tokens as were asked for."""


class UnknownModel(ServiceError):
    """The server has no model of this name."""


class WrongAddress(ServiceError):
    """The server is to be asked at another address."""


class NothingThere(WrongAddress):
    """Nothing is served at this address."""


class RetryableError(Exception):
    """A call got no reply, but a retry may help, after `retry_after` seconds if the provider says so.

    `status`: the HTTP status of the response, None if there was none.
    """

    def __init__(self, message: str, retry_after: float | None = None, status: int | None = None):
        super().__init__(message)
        self.retry_after, self.status = retry_after, status


class EmptyAnswer(RetryableError):
    """A completion without choices."""


class NoJSON(RetryableError):
    """An HTML page instead of JSON: from a proxy in front of the server, or from a wrong address."""


class ConnectionFailed(RetryableError):
    """The connection broke before there was an answer."""


_FATAL_STATUSES = (401, 402, 403)  # every request would get these
_NOTHING_THERE_STATUSES = (404, 405, 410)
_RETRYABLE_STATUSES = (408, 409, 425, 429)  # and all from 500 on
_REFUSAL_STATUSES = (None, 400, 403, 422, 451)  # used for refused content, among other things
_UNKNOWN_MODEL_STATUSES = (None, 400, 404, 422)

# The wording of providers in the message, code or type of an error; code and type have underscores instead of spaces.
_CONTENT_REFUSED = re.compile(
    r"content[ _-]?(filter|policy|management|moderation|exists risk|safety)|prohibited[ _]content|responsible ?ai ?polic"
    r"|data[ _]?inspection[ _]?failed|moderation|\bflagged\b|safety (system|filter|polic)|considered high risk",
    re.IGNORECASE,
)
_ACCOUNT_PROBLEM = re.compile(
    r"insufficient[ _](quota|balance|credits?|funds)|exceeded_current_quota|credit balance|out of credits?|payment required"
    r"|arrearage|(invalid|incorrect|missing|wrong|expired)[ _]api[ _-]?key|api key (is )?(not valid|invalid|expired)|invalid_api_key"
    r"|account[^.]{0,40}(deactivated|suspended|disabled|blocked)",
    re.IGNORECASE,
)
_UNKNOWN_MODEL = re.compile(
    r"model[ _]not[ _](found|exist)|\binvalid[ _]model\b|unknown model|no such model|\bmodel\b[^.]{0,80}(does not exist|not found)"
    r"|not a valid model",
    re.IGNORECASE,
)
_PLAIN_HTTP = re.compile(r"plain http request was sent to https|sent an http request to an https", re.IGNORECASE)

_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype|html|head|body)\b", re.IGNORECASE | re.DOTALL)


def error_in(answer: object) -> object:
    """Returns the error in a JSON response of any status, at the top level or in the first choice; None if there is none."""
    if isinstance(answer, list) and answer:  # some servers wrap it in a list
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    if answer.get("object") == "error":
        return answer
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return answer.get("error") or (first.get("error") if isinstance(first, dict) else None) or None


def error_text(error: object) -> str:
    """Returns the message of an error object in OpenAI's form with its code or type; of any other object, its text."""
    if not isinstance(error, dict):
        return str(error)
    message = error.get("message") or json.dumps(error)
    if "n_ctx" in error:  # llama.cpp names the limit beside the message
        message = f"{message} (n_prompt_tokens={error.get('n_prompt_tokens')}, n_ctx={error['n_ctx']})"
    code = error.get("code") or error.get("type")
    return f"{message} ({code})" if code and not str(code).isdecimal() and str(code) not in str(message) else str(message)


def error_of(payload: bytes) -> str:
    """Returns the error message in the body of a failed request, or the start of the body if there is none."""
    if is_html(payload):
        return page_text(payload)
    try:
        answer = json.loads(payload)
    except ValueError:
        return payload[:500].decode(errors="replace")
    if (error := error_in(answer)) is not None:
        return error_text(error)
    detail = answer.get("detail") if isinstance(answer, dict) else None  # FastAPI's form
    return _details(detail) if detail else payload[:500].decode(errors="replace")


def _details(detail: object) -> str:
    """Returns FastAPI's `detail` as text: a string, or a list of {"loc": [...], "msg": ...}, one for each faulty field."""
    if not isinstance(detail, list):
        return detail if isinstance(detail, str) else json.dumps(detail)
    fields = [item for item in detail if isinstance(item, dict)]
    return "; ".join(f"{'.'.join(map(str, item.get('loc') or ['request']))}: {item.get('msg')}" for item in fields) or str(
        detail
    )


def is_html(payload: bytes) -> bool:
    """Returns whether a response is an HTML page."""
    return _HTML.match(payload) is not None


def page_text(payload: bytes) -> str:
    """Returns the title of an HTML page, or the start of its text if it has none."""
    page = payload[:20_000].decode(errors="replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", page, re.IGNORECASE | re.DOTALL)
    text = title[1] if title and title[1].strip() else re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", page)
    return f"an HTML page: {' '.join(html.unescape(text).split())[:150]}"


def error_status(error: object) -> int | None:
    """Returns the HTTP status that an error object names; None if it names none. For errors sent with status 200."""
    code = error.get("code") or error.get("status") if isinstance(error, dict) else None
    return int(code) if str(code).isdecimal() and 400 <= int(code) <= 599 else None


def fault(role: str, model: str, status: int | None, message: str, headers: Mapping) -> Exception:
    """Returns the exception to raise for a failed call. `status` is None if the response had none.

    RefusedError: the model or its provider refuses this content. ServiceError (or UnknownModel, NothingThere): every further request
    would fail as well. RetryableError: a retry may help. PromptTooLong, InvalidRequest: the server does not take this request.
    """
    description = one_line(f"{status}: {message}" if status else message)
    if _ACCOUNT_PROBLEM.search(message):
        return ServiceError(f"{model} as {role}: {description}")
    if status in _UNKNOWN_MODEL_STATUSES and _UNKNOWN_MODEL.search(message):
        return UnknownModel(f"{model} as {role}: {description}")
    if (overflow := overflow_in(message)) or status == 413:
        text = f"{role}: request refused: {description}; the prompt is too long for the model"
        return PromptTooLong(text, message, overflow or Overflow())
    if status in _REFUSAL_STATUSES and _CONTENT_REFUSED.search(message):
        return RefusedError(f"{role}: refused for its content: {description}")
    if status in _FATAL_STATUSES:
        return ServiceError(f"{model} as {role}: {description}")
    if status in _NOTHING_THERE_STATUSES:
        return NothingThere(f"{model} as {role}: {description}")
    if _PLAIN_HTTP.search(message):
        return WrongAddress(f"{model} as {role}: {description}: give its address with https:// instead of http://")
    if status is None and refuses_parameters(message):
        return InvalidRequest(f"{role}: request refused: {description}", message)
    if status is None or status in _RETRYABLE_STATUSES or not 400 <= status <= 499:
        return RetryableError(description, retry_after(headers.get("Retry-After")), status)
    return InvalidRequest(f"{role}: request refused: {description}", message)


def retry_after(value: str | None) -> float | None:
    """Returns the seconds to wait by a Retry-After header, a number or an HTTP date (RFC 9110, 10.2.3); None if it has neither."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


secret_names: set[str] = set()  # environment variables named as keys in the configuration


def api_keys() -> dict[str, str]:
    """Returns the API keys in the environment by the names of their variables."""
    variables = os.environ.items()
    return {n: value for n, value in variables if (n in secret_names or n.endswith(("_KEY", "_TOKEN"))) and len(value) >= 8}


def redact(text: str, keys: Mapping[str, str]) -> str:
    """Returns `text` with every key replaced by the name of its variable, $NAME."""
    for name, key in keys.items():
        if key in text:
            text = text.replace(key, f"${name}")
    return text


def one_line(error: object) -> str:
    """Returns an error's message on one line of at most 200 characters, with API keys redacted; its type if it has no message."""
    text = redact(" ".join(str(error).split()), api_keys()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
