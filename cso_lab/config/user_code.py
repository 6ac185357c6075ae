"""Which line of the user's own code an error comes from: a class of theirs that the configuration names by `_target_`."""

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


def own_line(error: BaseException, called: bool = False) -> str | None:
    """The innermost line of the user's own code that `error` passed through, if code of this project called it, else None.

    'mine/rewards.py, line 12, in __call__: return scores["X"]'. `called`: this project's code is known to stand above the traceback,
    as it does for the cause of another error.
    """
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _is_ours(frame):
            called = True
        elif called and not _is_library(frame):
            found = traceback.extract_stack(frame, limit=1)[0], line
    if found is None:
        return None
    summary, line = found
    place = traceback.FrameSummary(summary.filename, line, summary.name)
    return f"{place.filename}, line {line}, in {place.name}" + (f": {place.line}" if place.line else "")


def _is_ours(frame: FrameType) -> bool:
    file = Path(frame.f_code.co_filename)
    return any(file.is_relative_to(part) for part in _OURS)


def _is_library(frame: FrameType) -> bool:
    """Whether a frame is of Python's own library, of a package this project requires, or of generated code."""
    file = Path(frame.f_code.co_filename)
    if not file.is_absolute():
        return True
    if {"site-packages", "dist-packages"} & set(file.parts):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        return not _required() or bool({_normal(name) for name in distributions(package)} & _required())
    return file.is_relative_to(sysconfig.get_path("stdlib"))


@cache
def _required() -> frozenset[str]:
    """The distributions this project stands on, directly or not; empty where it is not installed."""
    found, open_ = set(), [_PROJECT]
    while open_:
        name = open_.pop()
        if name in found:
            continue
        try:
            needs = requires(name) or ()
        except PackageNotFoundError:
            continue
        found.add(name)
        open_ += [_normal(need) for need in needs]
    return frozenset(found)


def _normal(requirement: str) -> str:
    """'ray' of 'Ray[default]>=2; extra == "ray"'."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()
