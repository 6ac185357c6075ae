"""Reads from an error message that a server does not take a parameter of a request, or not its value."""

import re
from collections.abc import Collection

_REFUSED = re.compile(
    r"unsupported|(not|no longer) supported|not support\b|unrecognized|deprecated|extra (inputs|fields)|extra_forbidden|not permitted"
    r"|(unknown|unexpected) (name|field|parameter|argument|key|keyword|request argument)|only the default",
    re.IGNORECASE,
)
_TOO_MANY = re.compile(
    r"\bmax_(new_|completion_)?tokens\b[^.]{0,40}(too large|must be <=|valid range|> \d+, which is the maximum|at most|exceeds)",
    re.IGNORECASE,
)


def refuses_parameters(message: str) -> bool:
    """Returns whether an error message says that a parameter, or its value, is not supported."""
    return _REFUSED.search(message) is not None


def refused_parameter(message: str, sent: Collection[str]) -> str | None:
    """Returns which of the parameters in `sent` a message says is not supported; None if it names none of them."""
    if not refuses_parameters(message):
        return None
    places = {name: re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) for name in sent}
    named = {name: place.start() for name, place in places.items() if place}
    return min(named, key=named.get, default=None)


def refuses_max_tokens(message: str) -> bool:
    """Returns whether a message says that no reply of the model may have so many tokens as were asked for."""
    return _TOO_MANY.search(message) is not None
