"""The report of a run or a sweep: report.md, report.csv, report.tex and report.html in its folder, and the main table on the terminal."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cso_lab.conversation.records import CONVERSATION_METRICS
from cso_lab.core.tables import terminal
from cso_lab.reporting import conversations
from cso_lab.reporting.cells import INSPECTION_FILE, Cell, MissingCell, load_cells
from cso_lab.reporting.conversations import load_conversations, without_conversations
from cso_lab.reporting.data_scaling import write_volume_figure
from cso_lab.reporting.dataset_tables import MARKDOWN_FILE
from cso_lab.reporting.markdown import difference_lines, legend, markdown, notices, remarks
from cso_lab.reporting.results_table import ResultsTable
from cso_lab.reporting.rows import table_rows
from cso_lab.reporting.significance import compare_rows

REPORT_FILE = "report.md"
CSV_FILE = "report.csv"
TEX_FILE = "report.tex"


def write_and_print(folders: Iterable[Path], out: Path, title: str, table: str | None) -> bool:
    """Writes the report on run folders into `out` and prints it.

    Returns whether every cell has its numbers; cells that were not run for want of an API key do not count as missing.
    """
    from cso_lab.reporting.html.page import write_report_page

    cells, missing = load_cells(folders)
    path = write_report([*cells, *missing], out, title, table=table)
    print_report([*cells, *missing], path, title, table=table)
    print(f"report: {write_report_page([*cells, *missing], out, title, table)}")
    other = (INSPECTION_FILE, CONVERSATION_METRICS)
    inspected = any((cell.folder / file).exists() for cell in missing for file in other)
    return bool(cells or inspected) and not any(cell.failed for cell in missing)


def write_report(
    cells_or_folders: Iterable[Cell | MissingCell | Path],
    out: Path,
    title: str,
    notes: Sequence[str] = (),
    table: str | None = None,
) -> Path:
    """Writes report.md, report.csv and report.tex into `out`, and Figure 4 where cells differ in preferences.dialogues.

    Takes cells, run folders, or both; folders without numbers are listed with the reason. `table` ("9") is the paper's table
    whose scores are looked up first. Returns the path of report.md.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    cells, missing = load_cells(cells_or_folders)
    results = ResultsTable(table_rows(cells, table), table)
    held, problems = load_conversations(run.folder for run in (*cells, *missing))
    notes = [*notes, *problems.values()]
    notes = [*notes, *(f"[{path.name}]({path.name})" for path in write_volume_figure(results.rows, out))]
    notes += _inspection_links([*cells, *missing], out)
    text = markdown(
        title, results, without_conversations(missing, held), compare_rows(results.rows), notes, conversations.sections(held)
    )
    files = {REPORT_FILE: text, CSV_FILE: results.csv(), TEX_FILE: results.latex(title)}
    if held:
        files[conversations.CSV_FILE] = conversations.csv(held)
    for name, content in files.items():
        (out / name).write_text(content, encoding="utf-8")
    return out / REPORT_FILE


def print_report(
    cells_or_folders: Iterable[Cell | MissingCell | Path], path: Path, title: str = "", table: str | None = None, console=None
) -> None:
    """Prints the main table, the differences to SFT, what failed or is missing, and `path`, where the report is.

    `console` is a rich Console to print on instead of standard output.
    """
    from rich.markup import escape

    console = terminal(console)
    cells, missing = load_cells(cells_or_folders)
    results = ResultsTable(table_rows(cells, table), table)
    if results.rows:
        models = {row.model for row in results.rows}
        if one_model := len(models) == 1:  # named in the title, which leaves more room for the columns
            title = ": ".join(filter(None, [title, *models]))
        console.print(results.text(title, model_column=not one_model).grid())
        console.print(escape(legend(results.rows, table)), highlight=False, soft_wrap=True)
        for line in difference_lines(compare_rows(results.rows)):
            console.print(escape(line), highlight=False, soft_wrap=True)
    if text := results.text_metrics():
        console.print(text.grid())
    for remark in remarks(cells, results.rows, table):
        console.print(escape(remark), highlight=False, soft_wrap=True)
    for notice in notices(cells):
        console.print(f"[bold]{escape(notice)}[/bold]", highlight=False, soft_wrap=True)
    held, problems = load_conversations(run.folder for run in (*cells, *missing))
    if held:
        console.print(conversations.short_table(held).grid())
    for notice in conversations.notices(held):
        console.print(f"[bold]{escape(notice)}[/bold]", highlight=False, soft_wrap=True)
    for problem in problems.values():
        console.print(f"[bold red]no numbers[/bold red] {escape(problem)}", soft_wrap=True)
    for cell in without_conversations(missing, held):
        label = "[bold red]no numbers[/bold red]" if cell.failed else "[yellow]not run[/yellow]"
        console.print(f"{label} {escape(f'{cell.folder.name}: {cell.reason}')}", soft_wrap=True)
    console.print(f"report: {escape(str(path))}", highlight=False, soft_wrap=True)


def _inspection_links(runs: Sequence[Cell | MissingCell], out: Path) -> list[str]:
    """Returns links to the inspection.md of the runs that have one (Tables 5 and 7, Figures 3 and 9)."""
    files = [(run.folder / INSPECTION_FILE).with_name(MARKDOWN_FILE) for run in runs]
    links = [os.path.relpath(file, out).replace(os.sep, "/") for file in files if file.exists()]
    return [f"the data of {Path(link).parents[1].name or 'this run'}: [{link}]({link})" for link in links]
