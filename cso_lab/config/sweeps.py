"""Which cells a sweep consists of: blocks of axes from its file, the command line over them, and every cell once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

# The sweepers whose jobs are known before they start: ours, and Hydra's own, which knows no blocks.
_KNOWN = ("hydra_plugins.cells_sweeper.CellsSweeper", "hydra._internal.core_plugins.basic_sweeper.BasicSweeper")

# [configuration, its jobs] of the last plan.
_last: list = []


@dataclass(frozen=True)
class Job:
    """One cell to run: its overrides, what they compose to (`hydra` node included), and the folder it leaves its files in."""

    overrides: tuple[str, ...]
    config: DictConfig
    folder: Path


def plan(config: DictConfig) -> list[Job] | None:
    """The jobs of the sweep that `config` describes, every cell once; None when another sweeper chooses them.

    Two jobs with one folder are one cell (the untrained model has no mode), so the first stands for both: run side by side they
    would write over each other. Raises what Hydra raises when a job cannot be composed. Composing takes a good part of a second a job, so
    the plan of the configuration that was asked for last is kept: the checks and the sweeper ask one after the other.
    """
    if _last and _last[0] is config:
        return _last[1]
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import open_dict

    sweeper = config.hydra.sweeper
    if sweeper._target_ not in _KNOWN:
        return None
    loader = GlobalHydra.instance().config_loader()
    jobs: dict[Path, Job] = {}
    for overrides in expand(
        _plain(sweeper, "params") or {}, _plain(sweeper, "cells") or [], config.hydra.overrides.task, loader
    ):
        job = loader.load_sweep_config(config, overrides)
        with open_dict(job):
            job.hydra.job.id = job.hydra.job.num = len(jobs)
        with current(job):
            folder = job_folder(job)
        jobs.setdefault(folder, Job(tuple(overrides), job, folder))
    _last[:] = [config, list(jobs.values())]
    return _last[1]


def expand(params: Mapping[str, object], cells: list[Mapping[str, object]], line: list[str], loader=None) -> list[list[str]]:
    """The overrides of each job: the union of the blocks in `cells`, each the product of its axes, of `params` and of `line`.

    {"algo": "sft,dpo", "mode": "full,lora"} is four jobs. A block's axis replaces that of `params`. A key of `line`, the overrides typed,
    that is an axis of some blocks replaces it there and leaves the other blocks as they are (preferences.dialogues=10,20 does not multiply
    the cells of SFT); any other key holds for all. Lists of overrides that are the same come once.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create(config_loader=loader)
    typed = parser.parse_overrides(list(line))
    given = {override.key_or_group for override in typed}
    of_blocks = {key for block in cells for key in block} - set(params)
    jobs: dict[tuple[str, ...], None] = {}
    for block in cells or [{}]:
        axes = [f"{key}={value}" for key, value in {**params, **block}.items() if key not in given]
        held = [override for override in typed if override.key_or_group in block or override.key_or_group not in of_blocks]
        (batch,) = BasicSweeper.split_arguments([*parser.parse_overrides(axes), *held], max_batch_size=None)
        jobs |= dict.fromkeys(map(tuple, batch))
    return [list(job) for job in jobs]


def job_folder(job: DictConfig) -> Path:
    """Where a job of the sweep leaves its files."""
    return Path(str(job.hydra.sweep.dir), str(job.hydra.sweep.subdir))


@contextmanager
def current(job: DictConfig) -> Iterator[None]:
    """Make `job` the one that `${hydra:...}` speaks of."""
    from hydra.core.hydra_config import HydraConfig

    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(job)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def only_reports(config: DictConfig) -> bool:
    """Whether a job does nothing but report, which its sweep does for it."""
    return list(config.stages) == ["report"]


def _plain(sweeper: DictConfig, key: str) -> object:
    value = OmegaConf.select(sweeper, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
