"""Hydra's callback around a sweep: checks all jobs before the first starts, and reports on all cells at the end."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cso_lab.config.sweeps import current, only_reports, plan

# The launcher that runs one job after the other in this process.
_HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class SweepCallback(Callback):
    """Checks the jobs of a sweep before they start, and reports on their folders afterwards.

    The report reads files alone, so it works with any launcher. The process exits with code 2 when a job cannot work, and with
    1 when a cell failed or is missing.
    """

    def __init__(self) -> None:
        # {run folder of each cell: whether its stages include the report}; None if the sweeper's jobs are not known beforehand.
        self.has_report: dict[Path, bool] | None = None
        # Whether nothing is run, and the report is made of the files that are there.
        self.report_only = False

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Checks every job and writes the cells of the sweep to sweep.json."""
        with _exit_on_error():
            from cso_lab.pipeline.check import check
            from cso_lab.pipeline.run_cell import preflight_cells
            from cso_lab.reporting.sweeps import table_of, title_of, write_sweep_file

            jobs = plan(config)
            if jobs is None:
                return
            self.report_only = all(only_reports(job.config) for job in jobs)
            if self.report_only:
                return
            for job in jobs:
                with current(job.config):
                    check(_task(job.config))
            # Other launchers run jobs in other processes, or on machines that have what this one has not: there each job checks for itself.
            if config.hydra.launcher._target_ == _HERE:
                preflight_cells((_task(job.config), job.folder) for job in jobs)
            self.has_report = {job.folder: _reports(job.config) for job in jobs}
            if reported := [folder for folder, reports in self.has_report.items() if reports]:
                out = Path(str(config.hydra.sweep.dir))
                write_sweep_file(out, reported, title_of(config, out), table_of(config), list(config.hydra.overrides.task))

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        """Writes and prints the report, and prints the failures of the cells that have no report stage."""
        with _exit_on_error():
            from cso_lab.reporting.cells import find_run_folders
            from cso_lab.reporting.report import write_and_print
            from cso_lab.reporting.sweeps import report_again, table_of, title_of

            out = Path(str(config.hydra.sweep.dir))
            if self.report_only:
                complete = report_again(config, out)
            else:
                folders = dict.fromkeys(find_run_folders(out), _reports(config)) if self.has_report is None else self.has_report
                reported = [folder for folder, reports in folders.items() if reports]
                complete = not reported or write_and_print(reported, out, title_of(config, out), table_of(config))
                complete = _name_failures(folder for folder, reports in folders.items() if not reports) and complete
        if not complete:
            raise SystemExit(1)


def _reports(cfg: DictConfig) -> bool:
    """Returns whether a report is among the stages; a sweep over searches alone has no numbers to report."""
    return "report" in cfg.stages


def _name_failures(folders: Iterable[Path]) -> bool:
    """Prints the failures among these folders. Returns whether there are none."""
    from cso_lab.reporting.cells import FAILED_FILE, load_cells

    _, failed = load_cells(folder for folder in folders if (folder / FAILED_FILE).exists())
    for cell in failed:
        print(f"error: {cell.folder.name}: {cell.reason}", file=sys.stderr)
    return not failed


def _task(job: DictConfig) -> DictConfig:
    """Returns the configuration without Hydra's own node, as the job gets it."""
    from copy import deepcopy

    from omegaconf import open_dict, read_write

    task = deepcopy(job)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Exits with a code on any error: Hydra turns an exception in a callback into a mere warning."""
    try:
        yield
    except Exception as error:
        from cso_lab.config.error_messages import explain_or_show

        explanation = explain_or_show(error)
        if explanation is None:
            raise SystemExit(1) from error
        print(f"error: {explanation}", file=sys.stderr)
        raise SystemExit(explanation.exit_code) from None
