"""`extra`: fields of the user's own in the body of a request, of a role, a served model, the judges or a scorer."""

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from cso_lab.config.validation import WITHHELD

# What requests are given by this project, and names that the library for other providers takes for itself instead of sending them.
_TAKEN = frozenset(
    ("model", "messages", "seed", "stream", "stream_options", "n", "temperature", "max_tokens", "max_completion_tokens")
) | frozenset(
    ("response_format", "extra_body", "timeout", "num_retries", "max_retries", "fallbacks", "mock_response", "cache", "caching")
)
_SECRET_OR_ADDRESS = re.compile(
    r"(^|_)((api|access|private|secret|subscription)_?key|secrets?|passw(or)?d|credentials?|authorization|bearer|headers?|cookies?"
    r"|api_?base|base_?ur[li]|ur[li]|endpoint|host|hostname|prox(y|ies)|address|custom_llm_provider)(_|$)"
    r"|^(key|token)$|(auth|access|bearer|api|session|security|refresh|hf)_token$"
)
_SECRET_OR_ADDRESS_VALUE = re.compile(r"https?://|bearer |sk-|gsk_|hf_|xai-|AIza", re.IGNORECASE)


def _check_extra(extra: dict) -> dict:
    """Raises an error that names the field, and never its value, if it is set elsewhere or looks like a key or an address."""
    for name in extra:
        if _snake_case(name) in _TAKEN:
            raise _refusal(f"{name} is set elsewhere, or never sent: leave it out")
    _check_secrets(extra)
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError):
        raise _refusal("has a value that JSON cannot hold") from None
    return extra


def _check_secrets(value: object, name: str = "") -> None:
    if isinstance(value, dict):
        for key, child in value.items():
            if _SECRET_OR_ADDRESS.search(_snake_case(key)):
                raise _looks_secret(key)
            _check_secrets(child, key)
    elif isinstance(value, list):
        for child in value:
            _check_secrets(child, name)
    elif isinstance(value, str) and _SECRET_OR_ADDRESS_VALUE.match(value):
        raise _looks_secret(name)


def _looks_secret(name: object) -> PydanticCustomError:
    return _refusal(f"{name} looks like a key or an address, which go by api_key_env and api_base: leave it out")


def _refusal(message: str) -> PydanticCustomError:
    return PydanticCustomError(WITHHELD, "{message}", {"message": message})


def _snake_case(name: object) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name)).replace("-", "_").lower()


Extra = Annotated[dict[Any, Any], AfterValidator(_check_extra)] | None
