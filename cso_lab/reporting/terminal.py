"""The report on the terminal: the main table, and what failed."""

from collections.abc import Iterable
from pathlib import Path

from cso_lab.reporting.cells import Absent, Cell, gather
from cso_lab.reporting.comparison import main_table
from cso_lab.reporting.markdown import legend, notices, remarks
from cso_lab.reporting.rows import table_rows


def print_report(
    cells_or_folders: Iterable[Cell | Absent | Path], path: Path, title: str = "", table: str | None = None, console=None
) -> None:
    """The main table on the terminal, what failed or is missing, and `path`, where the report lies.

    `console`: a rich Console to print on instead of standard output.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 200)  # of a log file or pipe nobody knows the width; do not fold for it
    cells, absent = gather(cells_or_folders)
    rows = table_rows(cells, table)
    if rows:
        header, lines = main_table(rows, table)
        models = {row.model for row in rows}
        if len(models) == 1:  # narrower
            title, header, lines = ": ".join(filter(None, [title, *models])), header[1:], [line[1:] for line in lines]
        grid = Table(title=escape(title), title_justify="left")
        words = header.index("Method") + 1
        for number, name in enumerate(header):
            grid.add_column(name, justify="left" if number < words else "right", overflow="fold")
        for line in lines:
            grid.add_row(*map(escape, line))
        console.print(grid)
        console.print(escape(legend(rows, table)), highlight=False, soft_wrap=True)
    for note in remarks(cells, rows, table):
        console.print(escape(note), highlight=False, soft_wrap=True)
    for notice in notices(cells):
        console.print(f"[bold]{escape(notice)}[/bold]", highlight=False, soft_wrap=True)
    for cell in absent:
        lack = "[bold red]no numbers[/bold red]" if cell.failed else "[yellow]not run[/yellow]"
        console.print(f"{lack} {escape(f'{cell.folder.name}: {cell.reason}')}", soft_wrap=True)
    console.print(f"report: {escape(str(path))}", highlight=False, soft_wrap=True)
