"""Errors that the user can correct, and the setting whether errors are shown with their traceback."""

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

# Environment variable that is "1" in this process and those it starts if tracebacks are shown.
_TRACEBACKS = "CSO_LAB_TRACEBACKS"


class UserError(Exception):
    """An error that the user can correct. Commands print it as one line, without a traceback, and exit with `exit_code`."""

    exit_code = 2


class MissingKey(UserError):
    """The key of an API model is missing. In a sweep, that model's cells are listed as not run, and the other cells run."""


def unknown(what: str, value: object, valid: Iterable[object]) -> UserError:
    """Returns an error that names the closest valid choice and all others: "unknown data 'extess': did you mean ...? valid: ..."."""
    choices = [str(choice) for choice in valid]
    near = get_close_matches(str(value), choices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {what} {str(value)!r}: {hint}valid: {', '.join(choices) or 'none'}")


def show_tracebacks() -> None:
    """Makes this process and those it starts show errors with their whole traceback."""
    os.environ[_TRACEBACKS] = "1"


def heed_debug(arguments: Sequence[str]) -> None:
    """Calls `show_tracebacks` if `debug=true` is among the arguments or HYDRA_FULL_ERROR=1 is set."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in map(str.lower, arguments):
        show_tracebacks()


def tracebacks_shown() -> bool:
    """Returns whether errors are shown with their whole traceback."""
    return os.environ.get(_TRACEBACKS) == "1"
