"""One-line messages for errors of Hydra, OmegaConf and user code, which say what to correct."""

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
from cso_lab.config.user_code import user_line
from cso_lab.core.errors import UserError, tracebacks_shown, unknown


def explain(error: BaseException) -> UserError | None:
    """Returns a UserError that says what the user can correct; None if `error` is a fault of this project.

    Only stated causes (`raise ... from`) are searched: an error that was raised while another one was handled is a separate one.
    """
    if isinstance(error, BaseExceptionGroup):  # concurrent tasks mostly fail for the same reason, so the first one is enough
        explanations = [explain(member) for member in error.exceptions]
        return explanations[0] if all(explanations) else None
    chain = [error]
    while chain[-1].__cause__:
        chain.append(chain[-1].__cause__)
    for cause in chain:
        if isinstance(cause, UserError):
            return cause
    if isinstance(chain[-1], BaseExceptionGroup) and (explanation := explain(chain[-1])):
        return explanation
    explanation = _of_configuration(chain)
    location = next((line for cause in reversed(chain) if (line := user_line(cause, is_cause=cause is not error))), None)
    if location is None:
        return explanation
    return UserError(f"{explanation or type_and_message(chain[-1])} ({location}); debug=true shows the whole traceback")


def explain_or_show(error: BaseException) -> UserError | None:
    """Returns what `explain` returns. Prints the whole traceback to stderr if that is None, or if debug=true is set."""
    explanation = explain(error)
    if explanation is None or tracebacks_shown():
        traceback.print_exception(error, file=sys.stderr)
    return explanation


def type_and_message(error: BaseException) -> str:
    """Returns type and message of an error in one line, as in "KeyError: 'E'"."""
    return f"{type(error).__name__}: {_one_line(error)}".removesuffix(": ")


def _of_configuration(chain: list[BaseException]) -> UserError | None:
    """Returns a UserError if `chain`, an error followed by its causes, comes from the configuration or the command line, else None."""
    for cause in chain:
        if isinstance(cause, MissingConfigException):
            return _missing_config(cause)
        if isinstance(cause, OverrideParseException):
            return _unreadable(cause.override, _syntax_problem(cause))
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
            continue  # its cause says more
        if isinstance(cause, HydraException) and (ambiguous := re.match(r"Ambiguous value for argument '(.*)'", str(cause))):
            return _unreadable(ambiguous[1], "a comma separates values of a sweep, which needs -m")
        if isinstance(cause, ConfigCompositionException):
            return UserError(_one_line(cause))
        if isinstance(cause, OmegaConfBaseException | HydraException):
            key = getattr(cause, "full_key", None)
            return UserError(f"{key}: {_first_line(cause)}" if key else _first_line(cause))
    return None


def _unreadable(override: str, reason: str) -> UserError:
    """Returns the error for an argument that Hydra cannot parse; it shows the argument quoted as one value."""
    quoted = with_quotes(override)
    hint = f"; as one value: {quoted}" if quoted else "; expected KEY=VALUE"
    return UserError(f"cannot read {override!r} on the command line: {reason}{hint}")


def _syntax_problem(error: OverrideParseException) -> str:
    """Returns which character of an argument Hydra could not parse, or the first line of its message."""
    mismatch = re.match(r"mismatched input '(.)' expecting <EOF>", str(error))
    if mismatch or str(error).startswith("LexerNoViableAlt"):
        return f"{mismatch[1] if mismatch else 'a character of it'} has to stand in quotes"
    return _first_line(error)


def _of_target(error: InstantiationException, cause: BaseException) -> UserError:
    """Returns the error for a `_target_` of the configuration that cannot be found, or that raised `cause` when it was called."""
    text = str(error)
    target = re.search(r"target '([^']+)'|partial\(([^,]+), ", text)
    key = re.search(r"full_key: (\S+)", text)
    if target is None or cause is error:
        return UserError(f"{key[1]}: {_first_line(error)}" if key else _first_line(error))
    name = next(filter(None, target.groups()))
    problem = f"cannot find {name}" if text.startswith("Error locating") else name
    moved = new_module(f"{name} {cause}") if isinstance(cause, ImportError) else None
    return UserError(f"{f'{key[1]}: ' if key else ''}{problem}: {type_and_message(cause)}{f'; {moved}' if moved else ''}")


def _missing_config(error: MissingConfigException) -> UserError:
    """Returns the error for an unknown option of a group, or an unknown group."""
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if error.options and group:
        return unknown(group, name, error.options)
    return UserError(_first_line(error))


def _unknown_key(error: ConfigKeyError | ConfigAttributeError) -> UserError:
    """Returns the error for a key that the configuration does not have; it lists the keys of the same node."""
    key = str(error.full_key or error.key)
    parent = error.parent_node
    node, _, name = key.rpartition(".")
    if renamed := new_name(key):
        return UserError(f"{key} is called {renamed} now")
    if OmegaConf.is_dict(parent):
        choices = [str(choice) for choice in parent if choice != "hydra"]
        return unknown(f"key under {node}" if node else "key", name, choices)
    return UserError(_first_line(error))


def _first_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error).strip().split("\n")[0]) or type(error).__name__


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error).strip())
