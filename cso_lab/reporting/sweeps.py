"""Which run folders a report is on: those of a sweep as its sweep.json names them, or whatever lies below a folder."""

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.errors import UserError
from cso_lab.files import read_json, write_json
from cso_lab.reporting.cells import FAILED_FILE, INSPECTION_FILE, METRICS_FILE

SWEEP_FILE = "sweep.json"


def leave_sweep(out: Path, folders: Iterable[Path], title: str, table: str | None, line: list[str]) -> None:
    """Note in the sweep's folder which cells it consists of, by their names, so that its report can be made again, also elsewhere."""
    cells = [Path(folder).relative_to(out).as_posix() for folder in folders]
    write_json(out / SWEEP_FILE, {"title": title, "table": table, "command": line, "cells": cells})


def sweep_of(out: Path) -> dict | None:
    """{title, table, command, cells: [folder]} of the sweep that last ran in a folder; None where none did."""
    file = Path(out) / SWEEP_FILE
    if not file.exists():
        return None
    note = read_json(file)
    if not isinstance(note, dict) or not isinstance(note.get("cells"), list):
        raise UserError(f"{file}: expected an object with a list of cells")
    return note | {"cells": [Path(out) / str(name) for name in note["cells"]]}


def left_folders(out: Path) -> list[Path]:
    """Every folder at or below `out` that holds a cell's numbers, the reason why it has none, or a look at its data."""
    cells = {path.parent for name in (METRICS_FILE, FAILED_FILE) for path in Path(out).rglob(name)}
    return sorted(cells | {path.parents[1] for path in Path(out).rglob(INSPECTION_FILE)})


def report_again(cfg: DictConfig, out: Path) -> bool:
    """Report on finished runs and run nothing; returns whether every cell has its numbers.

    `report.folder`: on everything below it, whoever made it. Otherwise on the sweep that last ran in `out`, or on all cells there.
    """
    chosen = cfg.report.folder
    folder = Path(str(chosen)) if chosen else Path(out)
    sweep = None if chosen else sweep_of(folder)
    folders = sweep["cells"] if sweep else left_folders(folder)
    if not folders:
        raise UserError(f"no cell in {folder}: expected folders with a {METRICS_FILE}")
    table = table_of(cfg) or (sweep or {}).get("table")
    return write_and_print(folders, folder, (sweep or {}).get("title") or title(cfg, folder), table)


def write_and_print(folders: Iterable[Path], out: Path, title: str, table: str | None) -> bool:
    """Write the report on `folders` into `out` and print it; returns whether every cell has its numbers, but for those without a key."""
    from cso_lab.reporting.cells import gather
    from cso_lab.reporting.html.page import write_report_page
    from cso_lab.reporting.report import write_report
    from cso_lab.reporting.terminal import print_report

    cells, absent = gather(folders)
    path = write_report([*cells, *absent], out, title, table=table)
    print_report([*cells, *absent], path, title, table=table)
    print(f"report: {write_report_page([*cells, *absent], out, title, table)}")
    looked = any((cell.folder / INSPECTION_FILE).exists() for cell in absent)
    return bool(cells or looked) and not any(cell.failed for cell in absent)


def title(cfg: DictConfig, out: Path) -> str:
    """What the report is called: the table or figure of the paper that the command line names, or the folder."""
    for kind in ("table", "figure"):
        name = OmegaConf.select(cfg, f"hydra.runtime.choices.{kind}")
        if name and str(name).isdigit():
            return f"{kind.capitalize()} {name}"
    return Path(out).resolve().name


def table_of(cfg: DictConfig) -> str | None:
    """The paper's table to set beside ours; typed as report.table=9 it is a number."""
    return None if cfg.report.table is None else str(cfg.report.table)
