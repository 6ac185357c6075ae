"""Errors of Hydra and OmegaConf in one line that names the valid choices."""

import re

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from cso_lab.errors import UserError, unknown


def explain(error: BaseException) -> UserError | None:
    """The UserError that says what a user can put right about `error`; None for anything else, which is then a fault of ours."""
    if isinstance(error, BaseExceptionGroup):  # tasks that ran side by side met the same wall, most often
        known = [explain(member) for member in error.exceptions]
        return known[0] if all(known) else None
    chain = [error]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    for cause in chain:
        if isinstance(cause, UserError):
            return cause
    for cause in chain:
        if isinstance(cause, MissingConfigException):
            return _missing_config(cause)
        if isinstance(cause, OverrideParseException):
            return UserError(f"cannot read {cause.override!r} on the command line: {_first_line(cause)}")
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            return _unknown_key(cause)
    for cause in chain:
        if isinstance(cause, ConfigCompositionException) and cause is not chain[-1]:
            continue  # what lies below it says more
        if isinstance(cause, OmegaConfBaseException | HydraException):
            key = getattr(cause, "full_key", None)
            return UserError(f"{key}: {_first_line(cause)}" if key else _first_line(cause))
    return None


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
    if OmegaConf.is_dict(parent):
        choices = [str(choice) for choice in parent if choice != "hydra"]
        return unknown(f"key under {where}" if where else "key", name, choices)
    return UserError(_first_line(error))


def _first_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error).strip().split("\n")[0]) or type(error).__name__
