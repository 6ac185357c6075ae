"""The one kind of error a user is meant to read."""

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

# Set for this process and those it starts where whole tracebacks are asked for.
_TRACEBACKS = "CSO_LAB_TRACEBACKS"


class UserError(Exception):
    """Something the user can put right. `run.py` prints it as one line, without a traceback, and exits with `exit_code`."""

    exit_code = 2


class MissingKey(UserError):
    """A model cannot be asked for want of its key. An API model's cell is then listed as not run, and no other is stopped."""


def unknown(what: str, given: object, valid: Iterable[object]) -> UserError:
    """An error that names the valid choices, the likeliest first: "unknown data 'extess': did you mean ...?"."""
    choices = [str(choice) for choice in valid]
    near = get_close_matches(str(given), choices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {what} {str(given)!r}: {hint}valid: {', '.join(choices) or 'none'}")


def show_tracebacks() -> None:
    """From now on, also in processes started from here, errors are shown with their whole traceback."""
    os.environ[_TRACEBACKS] = "1"


def heed_debug(arguments: Sequence[str]) -> None:
    """`show_tracebacks` if `debug=true` is among the arguments or the user has set HYDRA_FULL_ERROR=1."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in map(str.lower, arguments):
        show_tracebacks()


def tracebacks_shown() -> bool:
    return os.environ.get(_TRACEBACKS) == "1"
