"""What a failed call means, for its question and for the search; and how to speak of it without a key."""

import json
import os
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time

from cso_lab.core.errors import UserError


class RoleFailure(Exception):
    """One question got no usable answer within its attempts. The dialogue it belongs to cannot go on."""


class ParseError(ValueError):
    """A reply that does not have the form its role promises. It is asked again, a bounded number of times."""


class RefusedError(RoleFailure):
    """The model's own doing: it refused this question for its content, or answered nonsense in every attempt."""


class ServiceError(UserError):
    """What every question would meet: an account without credit or rights, no such model, a server that answers nobody.

    Nothing more is asked. What was answered is kept, and the same command goes on.
    """


class RetryableError(Exception):
    """A call that brought no reply; asking again may help, `retry_after` seconds from now if the provider says so."""

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


_HOPELESS = (401, 402, 403, 404, 405, 410)  # every question would meet these
_PASSING = (408, 409, 425, 429)  # and all from 500 on
_REFUSING = (None, 400, 403, 422, 451)  # with which servers refuse a question for its content, and much else
_NAMING_THE_MODEL = (None, 400, 404, 422)

# How providers say it, in message, code or type of an error. Code and type have underscores for blanks.
_OF_CONTENT = re.compile(
    r"content[ _-]?(filter|policy|management|moderation|exists risk|safety)|prohibited[ _]content|responsible ?ai ?polic"
    r"|data[ _]?inspection[ _]?failed|moderation|\bflagged\b|safety (system|filter|polic)|considered high risk",
    re.IGNORECASE,
)
_OF_ACCOUNT = re.compile(
    r"insufficient[ _](quota|balance|credits?|funds)|exceeded_current_quota|credit balance|out of credits?|payment required"
    r"|arrearage|(invalid|incorrect|missing|wrong|expired)[ _]api[ _-]?key|api key (is )?(not valid|invalid|expired)|invalid_api_key"
    r"|account[^.]{0,40}(deactivated|suspended|disabled|blocked)",
    re.IGNORECASE,
)
_OF_MODEL = re.compile(
    r"model[ _]not[ _](found|exist)|\binvalid[ _]model\b|unknown model|no such model|\bmodel\b[^.]{0,80}(does not exist|not found)"
    r"|not a valid model",
    re.IGNORECASE,
)


def error_in(answer: object) -> object:
    """The error in a JSON answer, whatever its status was: under "error", alone or within the first choice. None where there is none."""
    if isinstance(answer, list) and answer:  # as some servers wrap it
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    if answer.get("object") == "error":
        return answer
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return answer.get("error") or (first.get("error") if isinstance(first, dict) else None) or None


def error_text(error: object) -> str:
    """The message of an error in OpenAI's form, with its code or type; of any other, its words."""
    if not isinstance(error, dict):
        return str(error)
    message = error.get("message") or json.dumps(error)
    code = error.get("code") or error.get("type")
    return f"{message} ({code})" if code and not str(code).isdecimal() and str(code) not in str(message) else str(message)


def error_of(payload: bytes) -> str:
    """What the body of a failed request says."""
    try:
        answer = json.loads(payload)
    except ValueError:
        return payload[:500].decode(errors="replace")
    error = error_in(answer)
    return payload[:500].decode(errors="replace") if error is None else error_text(error)


def error_status(error: object) -> int | None:
    """The HTTP status an error that came with status 200 names for itself."""
    code = error.get("code") or error.get("status") if isinstance(error, dict) else None
    return int(code) if str(code).isdecimal() and 400 <= int(code) <= 599 else None


def fault(role: str, model: str, status: int | None, message: str, headers: Mapping) -> Exception:
    """The error that says what a failed call means for the question and for the work. `status`: None where the server gave none.

    RefusedError: the model, or the provider on its behalf, refuses this content. ServiceError: every question would meet it.
    RetryableError: ask again. RoleFailure: this question cannot be asked as it is, too long for instance.
    """
    said = one_line(f"{status}: {message}" if status else message)
    if _OF_ACCOUNT.search(message) or (status in _NAMING_THE_MODEL and _OF_MODEL.search(message)):
        return ServiceError(f"{model} as {role}: {said}")
    if status in _REFUSING and _OF_CONTENT.search(message):
        return RefusedError(f"{role}: refused for its content: {said}")
    if status in _HOPELESS:
        return ServiceError(f"{model} as {role}: {said}")
    if status is None or status in _PASSING or not 400 <= status <= 499:
        return RetryableError(said, retry_after(headers.get("Retry-After")))
    return RoleFailure(f"{role}: request refused: {said}")


def retry_after(value: str | None) -> float | None:
    """Seconds, from a Retry-After header: a number, or a date of HTTP (RFC 9110, 10.2.3). None when there is none to be read."""
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


secret_names: set[str] = set()  # variables that hold a key whatever they are called


def keys() -> dict[str, str]:
    """The keys in the environment, by the names of their variables."""
    variables = os.environ.items()
    return {n: value for n, value in variables if (n in secret_names or n.endswith(("_KEY", "_TOKEN"))) and len(value) >= 8}


def hide(text: str, keys: Mapping[str, str]) -> str:
    for name, key in keys.items():
        if key in text:
            text = text.replace(key, f"${name}")
    return text


def one_line(error: object) -> str:
    """An error's first words, short enough for one line, without any key."""
    text = hide(" ".join(str(error).split()), keys()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
