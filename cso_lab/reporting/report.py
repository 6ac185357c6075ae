"""The report of a sweep: report.md, report.csv, and the main table on the terminal."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from cso_lab.reporting.cells import Absent, Cell, gather
from cso_lab.reporting.records import csv_text
from cso_lab.reporting.table import (
    HEADERS,
    NONE,
    Row,
    main_table,
    mean_and_deviation,
    model_name,
    table_rows,
    withheld,
)

REPORT_FILE = "report.md"
CSV_FILE = "report.csv"
_NEVER = "*"
# How the choices around a cell are called in the report; any other goes by its own name.
_CHOICES = {
    "data": "data",
    "test_turns": "test turns",
    "roles": "players of the search",
    "mcts": "search",
    "preferences": "preference data",
    "max_new_tokens": "tokens a reply may have",
}
# Said in other places of the report.
_ELSEWHERE = ("roles_notice", "constrain", "start_from", "seed", "path")
_DECODED = {
    "none": "a reply is whatever the model writes (generation.constrain=none, as in the paper)",
    "format": "a reply must open with one of the strategies (generation.constrain=format; the paper's cells use none)",
}


def write_report(
    cells_or_folders: Iterable[Cell | Absent | Path],
    out: Path,
    title: str,
    notes: Sequence[str] = (),
    table: str | None = None,
) -> Path:
    """Write report.md and report.csv into `out`; returns the path of report.md.

    Takes cells, run folders, or both; folders without numbers are listed with the reason. `table` ("9") says which of the
    paper's tables is looked up first for the values beside ours.
    """
    cells, absent = gather(cells_or_folders)
    rows = table_rows(cells, table)
    sections = [f"# {title}", *_warnings(cells), "## What was run\n\n" + _bullets(_what_was_run(cells))]
    if rows:
        sections += ["## Results\n\n" + markdown_table(*main_table(rows)), _legend(rows)]
        sections += ["## Intervals\n\n" + markdown_table(*_interval_table(rows)), _interval_legend(cells)]
        sections += _strategy_sections(rows)
    if absent:
        lines = [[cell.folder.name, cell.reason] for cell in absent]
        sections.append("## Missing or failed cells\n\n" + markdown_table(["Cell", "Reason"], lines))
    if notes := [*notes, *_withheld(cells)]:
        sections.append("## Notes\n\n" + _bullets(notes))
    path = Path(out) / REPORT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    path.with_name(CSV_FILE).write_text(csv_text(rows, table), encoding="utf-8")
    return path


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
        header, lines = main_table(rows)
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
        console.print(escape(_legend(rows)), highlight=False, soft_wrap=True)
    for note in _withheld(cells):
        console.print(escape(note), highlight=False, soft_wrap=True)
    for notice in _notices(cells):
        console.print(f"[bold]{escape(notice)}[/bold]", highlight=False, soft_wrap=True)
    for cell in absent:
        console.print(f"[bold red]no numbers[/bold red] {escape(f'{cell.folder.name}: {cell.reason}')}", soft_wrap=True)
    console.print(f"report: {escape(str(path))}", highlight=False, soft_wrap=True)


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A pipe table; bars and line breaks within a field are escaped."""
    rows = [[" ".join(field.split()).replace("|", "\\|") for field in row] for row in (header, *lines)]
    rows.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _notices(cells: Sequence[Cell]) -> list[str]:
    """What the players say must stand beside their results."""
    return list(dict.fromkeys(str(cell.context["roles_notice"]) for cell in cells if cell.context.get("roles_notice")))


def _warnings(cells: Sequence[Cell]) -> list[str]:
    return [f"> **{notice[:1].upper()}{notice[1:].rstrip('.')}.**" for notice in _notices(cells)]


def _withheld(cells: Sequence[Cell]) -> list[str]:
    """Why some rows have no published value beside them although the paper has one for their backbone."""
    models = dict.fromkeys((cell.backbone, cell.label, str(cell.context["path"])) for cell in cells if withheld(cell))
    return [
        f"backbone={backbone} was loaded from {path}, which need not be the {label} of the paper: "
        "no published value stands beside it."
        for backbone, label, path in models
    ]


def _what_was_run(cells: Sequence[Cell]) -> list[str]:
    """One line a choice, with every value it took."""
    if not cells:
        return ["nothing that left numbers"]
    choices: dict[str, list] = {"model": [model_name(cell) for cell in cells]}
    for key in dict.fromkeys([*_CHOICES, *(key for cell in cells for key in cell.context)]):
        if key not in _ELSEWHERE:
            choices[_CHOICES.get(key, key)] = [cell.choice(key) for cell in cells]
    for key in dict.fromkeys(key for cell in cells for key in cell.varied):
        choices[key] = [cell.varied.get(key) for cell in cells]
    choices["decoding"] = [cell.decoding_label or cell.decoding for cell in cells]
    choices["form of replies"] = [
        _DECODED.get(cell.context["constrain"], f"generation.constrain={cell.context['constrain']}")
        for cell in cells
        if cell.context.get("constrain") is not None
    ]
    choices["seeds"] = sorted({cell.seed for cell in cells if cell.seed is not None})
    distinct = {
        name: list(dict.fromkeys(str(value) for value in values if value is not None)) for name, values in choices.items()
    }
    return [f"{name}: {', '.join(values)}" for name, values in distinct.items() if values]


def _legend(rows: Sequence[Row]) -> str:
    """What the numbers of the main table are."""
    said = ["Q, Q_W and R-L in percent, B as is; n: test turns; unparsed: replies that name no known strategy, misses in Q."]
    if any(len(row.cells) > 1 for row in rows):
        said.append("Over several seeds: mean ± sample standard deviation.")
    if any(row.paper for row in rows):
        said.append(
            "paper: as published, measured on its own test turns of ExTES, with its own searched data and no constraint."
        )
    return " ".join(said)


def _interval_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    shown = ("Q", "B")
    lines = [
        [row.name, NONE if cell.seed is None else str(cell.seed), *(_interval(cell, metric) for metric in shown)]
        for row in rows
        for cell in row.cells
    ]
    return ["Cell", "seed", *(HEADERS[metric] for metric in shown)], lines


def _interval(cell: Cell, metric: str) -> str:
    bounds = cell.intervals.get(metric)
    return f"{cell.scores[metric]:.2f}" + (f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else "")


def _interval_legend(cells: Sequence[Cell]) -> str:
    strategies = max((len(cell.strategies) for cell in cells), default=0)
    saturation = f"at {math.sqrt(strategies - 1):.2f}" if strategies > 1 else "at its largest value"
    return (
        f"95% bootstrap intervals over test turns. B saturates {saturation}: there when every reply has one strategy, and also "
        "when one strategy is never missed while others are, so on few test turns a difference in it means little."
    )


def _strategy_sections(rows: Sequence[Row]) -> list[str]:
    """F1 per strategy, one table a set of strategies, and which strategies a row never predicts."""
    by_set: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_set.setdefault(tuple(row.cells[0].strategies), []).append(row)
    sections = []
    for names, members in by_set.items():
        if not names:
            continue
        lines = [[row.name, *(_f1(row, name) for name in names)] for row in members]
        said = f"F1 in percent, the mean over seeds. {_NEVER}: never predicted, under any seed.\n\n"
        sections.append("## F1 per strategy\n\n" + said + markdown_table(["Cell", *names], lines))
        never = {row.name: [name for name in names if _never_predicted(row, name)] for row in members}
        listed = [f"{name} never predicts {', '.join(missing)}" for name, missing in never.items() if missing]
        sections.append(_bullets(listed) if listed else "Every row predicts every strategy.")
    return sections


def _f1(row: Row, strategy: str) -> str:
    mean, _ = mean_and_deviation([cell.strategies[strategy]["f1"] for cell in row.cells if strategy in cell.strategies])
    return f"{mean:.2f}{_NEVER if _never_predicted(row, strategy) else ''}"


def _never_predicted(row: Row, strategy: str) -> bool:
    return all(cell.strategies.get(strategy, {}).get("predicted") == 0 for cell in row.cells)
