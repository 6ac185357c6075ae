"""What happens once around a sweep: every job is checked before the first starts, one report of all cells comes at the end."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cso_lab.sweeping import current, only_reports, plan


class SweepReport(Callback):
    """Checks the jobs of a sweep before they start, and reports on their folders afterwards.

    Only files are read, so it does not matter which launcher ran the jobs. Leaves with exit code 2 when a job cannot work, with
    1 when a cell failed or is missing.
    """

    def __init__(self) -> None:
        # Folder of each cell -> whether a report is asked for; None when the sweeper does not tell beforehand.
        self.asked: dict[Path, bool] | None = None
        # Whether nothing is run, and the report is made again from what is there.
        self.again = False

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        with _heard():
            from cso_lab.checks import check
            from cso_lab.reporting.sweeps import leave_sweep, table_of, title

            jobs = plan(config)
            if jobs is None:
                return
            self.again = all(only_reports(job.config) for job in jobs)
            if self.again:
                return
            for job in jobs:
                with current(job.config):
                    check(_task(job.config))
            self.asked = {job.folder: _reports(job.config) for job in jobs}
            if reported := [folder for folder, wanted in self.asked.items() if wanted]:
                out = Path(str(config.hydra.sweep.dir))
                leave_sweep(out, reported, title(config, out), table_of(config), list(config.hydra.overrides.task))

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        with _heard():
            from cso_lab.reporting.sweeps import left_folders, report_again, table_of, title, write_and_print

            out = Path(str(config.hydra.sweep.dir))
            if self.again:
                complete = report_again(config, out)
            else:
                asked = dict.fromkeys(left_folders(out), _reports(config)) if self.asked is None else self.asked
                reported = [folder for folder, wanted in asked.items() if wanted]
                complete = not reported or write_and_print(reported, out, title(config, out), table_of(config))
                complete = _name_failures(folder for folder, wanted in asked.items() if not wanted) and complete
        if not complete:
            raise SystemExit(1)


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
