"""What a failed call means, for its question and for the search; and how to speak of it without a key."""

import json
import os
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time

from cso_lab.errors import UserError


class RoleFailure(Exception):
    """One question got no usable answer within its attempts. The dialogue it belongs to cannot go on."""


class Refused(RoleFailure):
    """The model was reached and had no usable words for this question: refused it, or answered nonsense in every attempt."""


class PassingFault(Exception):
    """A call that brought no reply; asking again may help, `retry_after` seconds from now if the provider says so."""

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


HOPELESS = (401, 403, 404)  # every question would meet these
PASSING = (408, 409, 425, 429)  # and all from 500 on


def error_text(payload: bytes) -> str:
    """The message of an error in OpenAI's form, else the body itself."""
    try:
        error = json.loads(payload)["error"]
        return f"{error['message']} ({error['code']})" if error.get("code") else error["message"]
    except (ValueError, TypeError, KeyError, AttributeError):
        return payload[:500].decode(errors="replace")


def fault(role: str, model: str, status: int, message: str, headers: Mapping) -> Exception:
    """The error that says what a failed call means for the question and for the search."""
    message = one_line(f"{status}: {message}")
    if status in HOPELESS or "insufficient_quota" in message:
        return UserError(f"{model} as {role}: {message}")
    if status in PASSING or status >= 500:
        return PassingFault(message, retry_after(headers.get("Retry-After")))
    return Refused(f"{role}: request refused: {message}")


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
