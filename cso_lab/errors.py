"""The one kind of error a user is meant to read."""

from collections.abc import Iterable
from difflib import get_close_matches


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
