"""What is typed after `python run.py`, before Hydra reads it."""

import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches

from cso_lab.core.errors import UserError

# Kinds of sweeps, the folders of experiments/ that `+KIND=NAME` chooses from.
SWEEPS = ("table", "figure")


def prepared(arguments: Sequence[str]) -> list[str]:
    """The arguments with `+table=9` as `+table='9'`: Hydra would read a number, but names of configurations are strings.

    Raises UserError if a sweep is asked for in a way that would run something else: without its "+", misspelt, or together with another.
    """
    sweeps = [argument for argument in arguments if _sweep(argument)]
    if len(sweeps) > 1:
        raise UserError(f"{' '.join(sweeps)}: one command runs one sweep")
    return [_quoted(argument) if argument in sweeps else argument for argument in arguments]


def _sweep(argument: str) -> str | None:
    """The kind of sweep an argument asks for, also where it is misspelt."""
    if found := re.match(r"(\+{0,2})(\w+)=", argument):
        plus, key = found.groups()
        near = get_close_matches(key, SWEEPS, n=1, cutoff=0.8)
        return near[0] if near and (plus or key in SWEEPS) else None
    return None


def _quoted(argument: str) -> str:
    key, _, value = argument.partition("=")
    kind, name = _sweep(argument), value.strip("'\"")
    if key != f"+{kind}":
        raise UserError(f"{argument}: a sweep is chosen by +{kind}=NAME; did you mean +{kind}={value}?")
    if re.search(r"[,\[\]]", name):
        raise UserError(f"{argument}: one command runs one sweep, +{kind}=NAME")
    return f"+{kind}='{name}'"


def with_quotes(override: str) -> str | None:
    """How to type `KEY=VALUE` for a value with characters that Hydra has a use of its own for; None where it has no value."""
    key, equals, value = override.partition("=")
    if not equals or not value:
        return None
    return shlex.quote(f'{key}="{_escaped(value)}"')


def _escaped(value: str) -> str:
    """A string between Hydra's double quotes: a quote is escaped, and so are backslashes right before one."""
    return re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + (f"\\{found[2]}" if found[2] else ""), value)
