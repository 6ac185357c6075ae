"""Finds the line of the user's own code (a class the configuration names by `_target_`) that an error comes from."""

import re
import sysconfig
import traceback
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from types import FrameType

from cso_lab.core.installed import distributions

_ROOT = Path(__file__).resolve().parents[2]
_OURS = (_ROOT / "cso_lab", _ROOT / "hydra_plugins", _ROOT / "experiments", _ROOT / "run.py")
_PROJECT = "cso-lab"


def user_line(error: BaseException, is_cause: bool = False) -> str | None:
    """Returns the innermost line of the user's own code in the traceback, as in 'rewards.py, line 12, in __call__: return scores["X"]'.

    Returns None if there is none, or if no code of this project called it. `is_cause` says that `error` is the cause of another error:
    its traceback then need not contain the call from this project.
    """
    called, innermost = is_cause, None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _is_ours(frame):
            called = True
        elif called and not _is_library(frame):
            innermost = traceback.extract_stack(frame, limit=1)[0], line
    if innermost is None:
        return None
    summary, line = innermost
    place = traceback.FrameSummary(summary.filename, line, summary.name)
    return f"{place.filename}, line {line}, in {place.name}" + (f": {place.line}" if place.line else "")


def _is_ours(frame: FrameType) -> bool:
    file = Path(frame.f_code.co_filename)
    return any(file.is_relative_to(part) for part in _OURS)


def _is_library(frame: FrameType) -> bool:
    """Returns whether a frame belongs to Python's standard library, to a package this project requires, or to generated code."""
    file = Path(frame.f_code.co_filename)
    if not file.is_absolute():
        return True
    if {"site-packages", "dist-packages"} & set(file.parts):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        return not _required() or bool({_normalized(name) for name in distributions(package)} & _required())
    return file.is_relative_to(sysconfig.get_path("stdlib"))


@cache
def _required() -> frozenset[str]:
    """Returns the distributions that this project requires, directly or not; none if it is not installed."""
    distributions, queue = set(), [_PROJECT]
    while queue:
        name = queue.pop()
        if name in distributions:
            continue
        try:
            requirements = requires(name) or ()
        except PackageNotFoundError:
            continue
        distributions.add(name)
        queue += [_normalized(requirement) for requirement in requirements]
    return frozenset(distributions)


def _normalized(requirement: str) -> str:
    """Returns the normalized name in a requirement: 'ray' for 'Ray[default]>=2; extra == "ray"'."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()
