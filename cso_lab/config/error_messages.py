"""Errors of Hydra, of OmegaConf and of a user's own classes in one line that says what to put right."""

import re
import sys
import traceback

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError

from cso_lab.config.command_line import with_quotes
from cso_lab.config.moved_modules import new_module
from cso_lab.config.renamed_keys import new_name
from cso_lab.config.user_code import own_line
from cso_lab.core.errors import UserError, tracebacks_shown, unknown


def explain(error: BaseException) -> UserError | None:
    """The UserError that says what a user can put right about `error`; None for anything else, which is then a fault of ours.

    Only stated causes (`raise ... from`) are looked at: what happened while another error was handled is an error of its own.
    """
    if isinstance(error, BaseExceptionGroup):  # tasks that ran side by side met the same wall, most often
        known = [explain(member) for member in error.exceptions]
        return known[0] if all(known) else None
    chain = [error]
    while chain[-1].__cause__:
        chain.append(chain[-1].__cause__)
    for cause in chain:
        if isinstance(cause, UserError):
            return cause
    if isinstance(chain[-1], BaseExceptionGroup) and (known := explain(chain[-1])):
        return known
    known = _of_configuration(chain)
    where = next((line for cause in reversed(chain) if (line := own_line(cause, called=cause is not error))), None)
    if where is None:
        return known
    return UserError(f"{known or said(chain[-1])} ({where}); debug=true shows the whole traceback")


def explain_or_show(error: BaseException) -> UserError | None:
    """What `explain` returns; the whole traceback is printed where it has nothing to say, or where debug=true asks for it."""
    known = explain(error)
    if known is None or tracebacks_shown():
        traceback.print_exception(error, file=sys.stderr)
    return known


def said(error: BaseException) -> str:
    """Kind and message of an error in one line: "KeyError: 'E'"."""
    return f"{type(error).__name__}: {_one_line(error)}".removesuffix(": ")


def _of_configuration(chain: list[BaseException]) -> UserError | None:
    """What the configuration or the command line has to do with an error (the first of `chain`) and its causes."""
    for cause in chain:
        if isinstance(cause, MissingConfigException):
            return _missing_config(cause)
        if isinstance(cause, OverrideParseException):
            return _unreadable(cause.override, _where_it_stopped(cause))
        if isinstance(cause, InstantiationException):
            return _of_target(cause, chain[-1])
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            return _unknown_key(cause)
        if isinstance(cause, MarkedYAMLError):
            return UserError(f"{_one_line(cause)}: no YAML")
        if isinstance(cause, UserWarning) and (path := re.search(r"path=(\S+) is not available", str(cause))):
            return UserError(
                f"hydra.searchpath: {path[1]} is not found; give pkg://PACKAGE.FOLDER of a package that can be imported"
                " (its folder on PYTHONPATH), or file:///FOLDER"
            )
    for cause in chain:
        if isinstance(cause, ConfigCompositionException) and cause is not chain[-1]:
            continue  # what lies below it says more
        if isinstance(cause, HydraException) and (ambiguous := re.match(r"Ambiguous value for argument '(.*)'", str(cause))):
            return _unreadable(ambiguous[1], "a comma separates values of a sweep, which needs -m")
        if isinstance(cause, ConfigCompositionException):
            return UserError(_one_line(cause))
        if isinstance(cause, OmegaConfBaseException | HydraException):
            key = getattr(cause, "full_key", None)
            return UserError(f"{key}: {_first_line(cause)}" if key else _first_line(cause))
    return None


def _unreadable(override: str, reason: str) -> UserError:
    """An argument that Hydra's grammar does not allow, with the quotes that make one value of it."""
    right = with_quotes(override)
    hint = f"; as one value: {right}" if right else "; expected KEY=VALUE"
    return UserError(f"cannot read {override!r} on the command line: {reason}{hint}")


def _where_it_stopped(error: OverrideParseException) -> str:
    found = re.match(r"mismatched input '(.)' expecting <EOF>", str(error))
    if found or str(error).startswith("LexerNoViableAlt"):
        return f"{found[1] if found else 'a character of it'} has to stand in quotes"
    return _first_line(error)


def _of_target(error: InstantiationException, cause: BaseException) -> UserError:
    """A class that the configuration names by `_target_` and that cannot be found, or that raised `cause` when it was made."""
    text = str(error)
    target = re.search(r"target '([^']+)'|partial\(([^,]+), ", text)
    key = re.search(r"full_key: (\S+)", text)
    if target is None or cause is error:
        return UserError(f"{key[1]}: {_first_line(error)}" if key else _first_line(error))
    name = next(filter(None, target.groups()))
    what = f"cannot find {name}" if text.startswith("Error locating") else name
    moved = new_module(f"{name} {cause}") if isinstance(cause, ImportError) else None
    return UserError(f"{f'{key[1]}: ' if key else ''}{what}: {said(cause)}{f'; {moved}' if moved else ''}")


def _missing_config(error: MissingConfigException) -> UserError:
    """An unknown option of a group, or an unknown group."""
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if error.options and group:
        return unknown(group, name, error.options)
    return UserError(_first_line(error))


def _unknown_key(error: ConfigKeyError | ConfigAttributeError) -> UserError:
    """A key the configuration does not have, with those that stand where it was looked for."""
    key = str(error.full_key or error.key)
    parent = error.parent_node
    name, where = key.rpartition(".")[2], key.rpartition(".")[0]
    if renamed := new_name(key):
        return UserError(f"{key} is called {renamed} now")
    if OmegaConf.is_dict(parent):
        choices = [str(choice) for choice in parent if choice != "hydra"]
        return unknown(f"key under {where}" if where else "key", name, choices)
    return UserError(_first_line(error))


def _first_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error).strip().split("\n")[0]) or type(error).__name__


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error).strip())
