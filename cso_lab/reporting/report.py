"""The report of a run or a sweep: report.md, report.csv, report.tex, and a figure where the amount of data was varied."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cso_lab.reporting.cells import INSPECTION_FILE, Absent, Cell, gather
from cso_lab.reporting.data_scaling import write_volume_figure
from cso_lab.reporting.dataset_tables import MARKDOWN_FILE
from cso_lab.reporting.markdown import markdown
from cso_lab.reporting.records import csv_text
from cso_lab.reporting.results_table import latex
from cso_lab.reporting.rows import table_rows
from cso_lab.reporting.significance import compared

REPORT_FILE = "report.md"
CSV_FILE = "report.csv"
TEX_FILE = "report.tex"


def write_report(
    cells_or_folders: Iterable[Cell | Absent | Path],
    out: Path,
    title: str,
    notes: Sequence[str] = (),
    table: str | None = None,
) -> Path:
    """Write report.md, report.csv and report.tex into `out`, and Figure 4 where cells differ in preferences.dialogues; returns the
    path of report.md.

    Takes cells, run folders, or both; folders without numbers are listed with the reason. `table` ("9") says which of the
    paper's tables is looked up first for the values beside ours.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    cells, absent = gather(cells_or_folders)
    rows = table_rows(cells, table)
    notes = [*notes, *(f"[{path.name}]({path.name})" for path in write_volume_figure(rows, out))]
    notes += _looks([*cells, *absent], out)
    text = markdown(title, rows, absent, compared(rows), notes, table)
    for name, content in ((REPORT_FILE, text), (CSV_FILE, csv_text(rows, table)), (TEX_FILE, latex(rows, title))):
        (out / name).write_text(content, encoding="utf-8")
    return out / REPORT_FILE


def _looks(runs: Sequence[Cell | Absent], out: Path) -> list[str]:
    """Where Tables 5 and 7 and Figures 3 and 9 of the runs are that looked at their data."""
    files = [(run.folder / INSPECTION_FILE).with_name(MARKDOWN_FILE) for run in runs]
    links = [os.path.relpath(file, out).replace(os.sep, "/") for file in files if file.exists()]
    return [f"the data of {Path(link).parents[1].name or 'this run'}: [{link}]({link})" for link in links]
