"""Where a cell is shown while it runs: nowhere, or at W&B. `conf/tracking/` names the class.

A tracker is told of work that begins and of stages that have their files; what it shows it reads from those files. No stage knows which
tracker there is, and nothing here is part of what a result is found by.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from omegaconf import DictConfig, OmegaConf

from cso_lab.config import cells as naming
from cso_lab.config.cells import trains


class Tracker(Protocol):
    """Use it in a `with` around the stages of a cell: its end is the run's, and an exception its failure."""

    def __enter__(self) -> "Tracker": ...

    def __exit__(self, kind, error, traceback) -> None: ...

    def begins(self, stage: str, folder: Path) -> None:
        """Work on a stage begins, whose files will be in `folder`. Not called where it is finished already."""

    def watch(self, stage: str, numbers: Mapping[str, float]) -> None:
        """Numbers of a stage under way."""

    def left(self, stage: str, folder: Path) -> None:
        """A stage has its files in `folder`, done now or found finished."""


class NoTracker:
    """Shows nothing and costs nothing."""

    def __init__(self, cell: "TrackedCell | None" = None):
        pass

    def __enter__(self) -> "NoTracker":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        pass

    def begins(self, stage: str, folder: Path) -> None:
        pass

    def watch(self, stage: str, numbers: Mapping[str, float]) -> None:
        pass

    def left(self, stage: str, folder: Path) -> None:
        pass


@dataclass(frozen=True)
class TrackedCell:
    """What a tracker knows of a cell before any stage: `config` is resolved and free of credentials, `table` the paper's table whose
    values are looked up first, `anew` whether everything is done again."""

    name: str
    folder: Path
    group: str
    tags: tuple[str, ...]
    config: Mapping
    table: str | None
    anew: bool


def tracker(cfg: DictConfig, folder: Path) -> Tracker:
    """The tracker that `cfg.tracking` names, for the cell whose files lie in `folder`."""
    from hydra.utils import instantiate

    return instantiate(cfg.tracking, _partial_=True, _convert_="all")(tracked(cfg, folder))


def tracked(cfg: DictConfig, folder: Path) -> TrackedCell:
    """The cell as trackers show it: named as it is found by, grouped by its sweep, tagged by backbone, algorithm and mode."""
    from cso_lab.pipeline.metadata import cell

    mode = [cfg.finetune_mode.name] if trains(cfg) else []
    return TrackedCell(
        name=naming.cell_name(cfg),
        folder=Path(folder),
        group=_group(cfg, Path(folder)),
        tags=(cfg.backbone.name, cfg.algorithm.name, *mode),
        config=_without_credentials(OmegaConf.to_container(cfg, resolve=True)) | {"cell": cell(cfg)},
        table=None if cfg.report.table is None else str(cfg.report.table),
        anew=bool(cfg.rerun),
    )


def _group(cfg: DictConfig, folder: Path) -> str:
    """The sweep's name where it has one of its own (table9, demo), else the folder its cells lie in."""
    unnamed = OmegaConf.load(naming.CONF / "config.yaml").sweep
    return folder.resolve().parent.name if cfg.sweep == unnamed else str(cfg.sweep)


def _without_credentials(value: object) -> object:
    """`value` with every address in it bare of a user name and password."""
    if isinstance(value, dict):
        return {key: _without_credentials(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_without_credentials(child) for child in value]
    if isinstance(value, str) and "://" in value and "@" in (place := urlsplit(value).netloc):
        return value.replace(place, place.rpartition("@")[2], 1)
    return value
