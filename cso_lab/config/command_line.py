"""Prepares the arguments of `python run.py` for Hydra."""

import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches

from cso_lab.core.errors import UserError

# Kinds of sweeps, the folders of experiments/ that `+KIND=NAME` chooses from.
SWEEPS = ("table", "figure")


def prepared(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with `+table=9` as `+table='9'`: Hydra would read a number, but names of configurations are strings.

    Raises UserError if a sweep is chosen without its "+", is misspelt, or is given together with another one.
    """
    sweeps = [argument for argument in arguments if _sweep(argument)]
    if len(sweeps) > 1:
        raise UserError(f"{' '.join(sweeps)}: one command runs one sweep")
    return [_quoted(argument) if argument in sweeps else argument for argument in arguments]


def _sweep(argument: str) -> str | None:
    """Returns the kind of sweep that an argument chooses, even if it is misspelt; None if it chooses none."""
    if match := re.match(r"(\+{0,2})(\w+)=", argument):
        plus, key = match.groups()
        near = get_close_matches(key, SWEEPS, n=1, cutoff=0.8)
        return near[0] if near and (plus or key in SWEEPS) else None
    return None


def _quoted(argument: str) -> str:
    """Returns `+KIND='NAME'` for an argument that chooses a sweep. Raises UserError if it has another form or several names."""
    key, _, value = argument.partition("=")
    kind, name = _sweep(argument), value.strip("'\"")
    if key != f"+{kind}":
        raise UserError(f"{argument}: a sweep is chosen by +{kind}=NAME; did you mean +{kind}={value}?")
    if re.search(r"[,\[\]]", name):
        raise UserError(f"{argument}: one command runs one sweep, +{kind}=NAME")
    return f"+{kind}='{name}'"


def with_quotes(override: str) -> str | None:
    """Returns `KEY=VALUE` quoted for the shell and for Hydra, which gives some characters a meaning; None if there is no value."""
    key, equals, value = override.partition("=")
    if not equals or not value:
        return None
    return shlex.quote(f'{key}="{_escaped(value)}"')


def _escaped(value: str) -> str:
    """Returns `value` as Hydra expects it within double quotes: quotes and the backslashes right before a quote are escaped."""
    return re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + (f"\\{match[2]}" if match[2] else ""), value)
