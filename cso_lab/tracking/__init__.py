"""Shows a run while it is under way: nowhere, or at W&B; `conf/tracking/` names the class.

A tracker is told when stages start and finish, and reads what it shows from the files that they leave. Stages do not know which
tracker there is, and no cache key depends on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from omegaconf import DictConfig


class Tracker(Protocol):
    """Shows one cell; a context manager around its stages, whose end is the end of the run and whose exception is its failure."""

    def __enter__(self) -> "Tracker": ...

    def __exit__(self, kind, error, traceback) -> None: ...

    def stage_started(self, stage: str, folder: Path) -> None:
        """Called when a stage starts, whose files will be in `folder`, but not for a stage that is finished already."""

    def log(self, stage: str, numbers: Mapping[str, float]) -> None:
        """Shows numbers of a stage that is running."""

    def stage_finished(self, stage: str, folder: Path) -> None:
        """Called when a stage has its files in `folder`, whether it ran now or before."""


class NoTracker:
    """Shows nothing."""

    def __init__(self, cell: "TrackedCell | None" = None):
        pass

    def __enter__(self) -> "NoTracker":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        pass

    def stage_started(self, stage: str, folder: Path) -> None:
        """Does nothing."""

    def log(self, stage: str, numbers: Mapping[str, float]) -> None:
        """Does nothing."""

    def stage_finished(self, stage: str, folder: Path) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class TrackedCell:
    """A cell as a tracker gets it before any stage runs.

    `group` and `tags` sort its run among others, `config` is the resolved configuration without credentials, `table` the paper's
    table whose scores are looked up first, and `rerun` says whether everything is computed again.
    """

    name: str
    folder: Path
    group: str
    tags: tuple[str, ...]
    config: Mapping
    table: str | None
    rerun: bool


def tracker(node: DictConfig, cell: TrackedCell) -> Tracker:
    """Returns the tracker that `node`, the configuration's `tracking`, names for a cell."""
    from hydra.utils import instantiate

    return instantiate(node, _partial_=True, _convert_="all")(cell)
