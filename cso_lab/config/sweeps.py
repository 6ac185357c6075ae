"""The cells of a sweep: the blocks of axes in its file, changed by the command line, without duplicates."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

# The sweepers whose jobs are known before they start: this project's, and Hydra's own, which has no blocks.
_PLANNED_SWEEPERS = ("hydra_plugins.cells_sweeper.CellsSweeper", "hydra._internal.core_plugins.basic_sweeper.BasicSweeper")

# [configuration, its jobs] of the last plan.
_last: list = []


@dataclass(frozen=True)
class Job:
    """One cell to run: its overrides, the configuration they compose to (with its `hydra` node), and its run folder."""

    overrides: tuple[str, ...]
    config: DictConfig
    folder: Path


def plan(config: DictConfig) -> list[Job] | None:
    """Returns the jobs of the sweep that `config` describes, every cell once; None if another sweeper chooses them as it runs.

    Two jobs with the same folder are one cell (the untrained model has no mode), of which the first job is kept: run in parallel, they
    would overwrite each other's files. Raises Hydra's error if a job cannot be composed. Composing takes much of a second a job, so the
    last plan is cached: the checks and the sweeper both ask for it.
    """
    if _last and _last[0] is config:
        return _last[1]
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import open_dict

    sweeper = config.hydra.sweeper
    if sweeper._target_ not in _PLANNED_SWEEPERS:
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
    """Returns the overrides of each job: the union of the blocks in `cells`, each the product of its axes, of `params` and of `line`.

    {"algo": "sft,dpo", "mode": "full,lora"} gives four jobs. A block's axis replaces that of `params`. `line` holds the overrides typed on
    the command line. One whose key is an axis of some blocks replaces that axis there and leaves the other blocks unchanged
    (preferences.dialogues=10,20 does not multiply the cells of SFT); any other one applies to all blocks. Duplicates are dropped.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create(config_loader=loader)
    typed = parser.parse_overrides(list(line))
    typed_keys = {override.key_or_group for override in typed}
    block_keys = {key for block in cells for key in block} - set(params)
    jobs: dict[tuple[str, ...], None] = {}
    for block in cells or [{}]:
        axes = [f"{key}={value}" for key, value in {**params, **block}.items() if key not in typed_keys]
        applied = [override for override in typed if override.key_or_group in block or override.key_or_group not in block_keys]
        (batch,) = BasicSweeper.split_arguments([*parser.parse_overrides(axes), *applied], max_batch_size=None)
        jobs |= dict.fromkeys(map(tuple, batch))
    return [list(job) for job in jobs]


def job_folder(job: DictConfig) -> Path:
    """Returns the run folder of a job of the sweep."""
    return Path(str(job.hydra.sweep.dir), str(job.hydra.sweep.subdir))


@contextmanager
def current(job: DictConfig) -> Iterator[None]:
    """Makes `${hydra:...}` resolve to the values of `job` within the context."""
    from hydra.core.hydra_config import HydraConfig

    previous = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(job)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = previous


def only_reports(config: DictConfig) -> bool:
    """Returns whether a job has only the report stage, which the sweep runs itself."""
    return list(config.stages) == ["report"]


def _plain(sweeper: DictConfig, key: str) -> object:
    """Returns the value at `key`, resolved, as plain Python containers."""
    value = OmegaConf.select(sweeper, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
