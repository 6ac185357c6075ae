"""Reports on finished runs: on the cells that a sweep has noted in its sweep.json, or on all run folders below a folder."""

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json
from cso_lab.reporting.cells import METRICS_FILE, find_run_folders

SWEEP_FILE = "sweep.json"


def write_sweep_file(out: Path, folders: Iterable[Path], title: str, table: str | None, command: list[str]) -> None:
    """Writes sweep.json into a sweep's folder: its cells, relative to the folder, so that it can be reported on again, also elsewhere."""
    cells = [Path(folder).relative_to(out).as_posix() for folder in folders]
    write_json(out / SWEEP_FILE, {"title": title, "table": table, "command": command, "cells": cells})


def read_sweep_file(out: Path) -> dict | None:
    """Returns {title, table, command, cells: [folder]} of the last sweep in a folder, None if there was none.

    Raises UserError if sweep.json is damaged.
    """
    file = Path(out) / SWEEP_FILE
    if not file.exists():
        return None
    sweep = read_json(file)
    if not isinstance(sweep, dict) or not isinstance(sweep.get("cells"), list):
        raise UserError(f"{file}: expected an object with a list of cells")
    return sweep | {"cells": [Path(out) / str(name) for name in sweep["cells"]]}


def report_again(cfg: DictConfig, out: Path) -> bool:
    """Reports on finished runs and runs nothing. Returns whether every cell has its numbers.

    With `report.folder` the report is on every run below it. Otherwise it is on the sweep that last ran in `out` or, without
    one, on all runs there. Raises UserError if there is none.
    """
    from cso_lab.reporting.report import write_and_print

    chosen = cfg.report.folder
    folder = Path(str(chosen)) if chosen else Path(out)
    sweep = None if chosen else read_sweep_file(folder)
    folders = sweep["cells"] if sweep else find_run_folders(folder)
    if not folders:
        raise UserError(f"no cell in {folder}: expected folders with a {METRICS_FILE}")
    table = table_of(cfg) or (sweep or {}).get("table")
    return write_and_print(folders, folder, (sweep or {}).get("title") or title_of(cfg, folder), table)


def title_of(cfg: DictConfig, out: Path) -> str:
    """Returns the title of a report: the paper's table or figure that the command line names, or the name of the folder."""
    for kind in ("table", "figure"):
        name = OmegaConf.select(cfg, f"hydra.runtime.choices.{kind}")
        if name and str(name).isdigit():
            return f"{kind.capitalize()} {name}"
    return Path(out).resolve().name


def table_of(cfg: DictConfig) -> str | None:
    """Returns the paper's table to compare with, as a string: typed as report.table=9 it is a number in the configuration."""
    return None if cfg.report.table is None else str(cfg.report.table)
