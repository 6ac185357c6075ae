"""What happens once around a sweep: every job is checked before the first starts, one report of all cells comes at the end."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

_BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class SweepReport(Callback):
    """Checks the jobs of a sweep before they start, and reports on their folders afterwards.

    Only files are read, so it does not matter which launcher ran the jobs. Leaves with exit code 2 when a job cannot work, with
    1 when a cell failed or is missing.
    """

    def __init__(self) -> None:
        # Folder of each cell -> whether a report is asked for; None when the sweeper does not tell beforehand.
        self.asked: dict[Path, bool] | None = None

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        with _heard():
            from cso_lab.checks import check

            jobs = compose_jobs(config)
            if jobs is None:
                return
            asked: dict[Path, bool] = {}
            for job in jobs:
                with _current(job):
                    check(_task(job))
                    folder = job_folder(job)
                asked[folder] = asked.get(folder, False) or _reports(job)
            self.asked = asked

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        with _heard():
            out = Path(str(config.hydra.sweep.dir))
            asked = dict.fromkeys(left_folders(out), _reports(config)) if self.asked is None else self.asked
            reported = [folder for folder, wanted in asked.items() if wanted]
            complete = not reported or report(reported, out, config)
            complete = _name_failures(folder for folder, wanted in asked.items() if not wanted) and complete
        if not complete:
            raise SystemExit(1)


def report(folders: list[Path], out: Path, config: DictConfig) -> bool:
    """Write and print the report on `folders` into `out`; returns whether every cell has its numbers."""
    from cso_lab.reporting.cells import gather
    from cso_lab.reporting.published import tables
    from cso_lab.reporting.report import print_report, write_report

    cells, absent = gather(folders)
    asked = OmegaConf.select(config, "hydra.runtime.choices.table")
    table = str(asked) if str(asked) in tables() else None
    title = f"Table {table}" if table else out.name
    path = write_report([*cells, *absent], out, title, table=table)
    print_report([*cells, *absent], path, title, table=table)
    return bool(cells) and not absent


def compose_jobs(config: DictConfig) -> list[DictConfig] | None:
    """The configuration of every job of the sweep, as Hydra's basic sweeper composes them, `hydra` node included.

    None when another sweeper chooses the jobs. Raises what Hydra raises when a job cannot be composed.
    """
    if config.hydra.sweeper._target_ != _BASIC_SWEEPER:
        return None
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import open_dict

    loader = GlobalHydra.instance().config_loader()
    params = OmegaConf.to_container(config.hydra.sweeper.params, resolve=True) if config.hydra.sweeper.params else {}
    arguments = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    (batch,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    jobs = []
    for number, job_overrides in enumerate(batch):
        job = loader.load_sweep_config(config, list(job_overrides))
        with open_dict(job):
            job.hydra.job.id = job.hydra.job.num = number
        jobs.append(job)
    return jobs


def job_folder(job: DictConfig) -> Path:
    """Where a job of the sweep leaves its files."""
    return Path(str(job.hydra.sweep.dir), str(job.hydra.sweep.subdir))


def left_folders(out: Path) -> list[Path]:
    """Every folder below `out` that holds a cell's numbers, or the reason why it has none."""
    from cso_lab.reporting.cells import FAILED_FILE, METRICS_FILE

    return sorted({path.parent for name in (METRICS_FILE, FAILED_FILE) for path in out.rglob(name)})


def _reports(cfg: DictConfig) -> bool:
    """Whether a report is among the stages asked for; a sweep over searches alone has no numbers to report."""
    return "report" in cfg.stages


def _name_failures(folders: Iterable[Path]) -> bool:
    """Name the failed ones among the jobs no report is asked of; returns whether there are none."""
    from cso_lab.reporting.cells import FAILED_FILE, gather

    _, failed = gather(folder for folder in folders if (folder / FAILED_FILE).exists())
    for cell in failed:
        print(f"error: {cell.folder.name}: {cell.reason}", file=sys.stderr)
    return not failed


def _task(job: DictConfig) -> DictConfig:
    """The configuration without Hydra's own node, as the job gets it."""
    from copy import deepcopy

    from omegaconf import open_dict, read_write

    task = deepcopy(job)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


@contextmanager
def _current(job: DictConfig) -> Iterator[None]:
    """Make `job` the one that `${hydra:...}` speaks of."""
    from hydra.core.hydra_config import HydraConfig

    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(job)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


@contextmanager
def _heard() -> Iterator[None]:
    """Leave with an exit code on any error: Hydra would make a mere warning of an exception in a callback."""
    try:
        yield
    except Exception as error:
        from cso_lab.explain import explain

        known = explain(error)
        if known is None:
            import traceback

            traceback.print_exc()
            raise SystemExit(1) from error
        print(f"error: {known}", file=sys.stderr)
        raise SystemExit(known.exit_code) from None
