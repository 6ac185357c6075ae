"""The sections of report.md."""

import math
from collections.abc import Iterable, Sequence

from cso_lab.core.published import label, of_table
from cso_lab.evaluation.paired import Difference
from cso_lab.reporting.cells import METRICS, Absent, Cell
from cso_lab.reporting.comparison import MARKS, main_table, not_run, stand_in_name, stand_ins, verdict
from cso_lab.reporting.rows import HEADERS, NONE, Row, mean_and_deviation, model_name, withheld
from cso_lab.reporting.significance import Compared

_NEVER = "*"
# How the choices around a cell are called in the report; any other goes by its own name.
_CHOICES = {
    "data": "data",
    "test_turns": "test turns",
    "roles": "players of the search",
    "mcts": "search",
    "preferences": "preference data",
    "preference_dialogues": "dialogues of preference data",
    "training_rows": "training rows",
    "training_steps": "training steps",
    "max_new_tokens": "tokens a reply may have",
    "testset": "test set of Q, Q_W and B",
    "served": "asked on a server",
    "served_at": "at",
    "usage": "calls to the server",
}
# Said in other places of the report.
_DIFFERENCES = (
    "The row less the one it is set against, on the same test turns, with the 95% interval of a paired bootstrap over turns; over several "
    "seeds, of their means. **Bold**: the interval leaves 0 out, so the difference is real for these turns; of twenty differences that are "
    "none, about one is bold all the same."
)
_ELSEWHERE = ("roles_notice", "constrain", "start_from", "seed", "path")
_DECODED = {
    "none": "a reply is whatever the model writes (generation.constrain=none, as in the paper)",
    "format": "a reply must open with one of the strategies (generation.constrain=format; the paper's cells use none)",
}


def markdown(
    title: str,
    rows: Sequence[Row],
    absent: Sequence[Absent],
    comparisons: Sequence[Compared],
    notes: Sequence[str],
    table: str | None,
) -> str:
    """The text of report.md."""
    cells = [cell for row in rows for cell in row.cells]
    sections = [
        f"# {title}",
        *warnings(cells, rows, table),
        "## What was run\n\n" + _bullets(f"{name}: {values}" for name, values in what_was_run(cells)),
    ]
    if rows:
        sections += ["## Results\n\n" + markdown_table(*main_table(rows, table)), legend(rows, table)]
        sections += ["## Intervals\n\n" + markdown_table(*_interval_table(rows)), _interval_legend(cells)]
        if comparisons:
            sections += ["## Differences\n\n" + markdown_table(*_difference_table(comparisons)), _DIFFERENCES]
        sections += _strategy_sections(rows)
    for heading, chosen in (("Missing or failed cells", True), ("Not run", False)):
        lines = [[cell.folder.name, cell.reason] for cell in absent if cell.failed == chosen]
        if lines:
            sections.append(f"## {heading}\n\n" + markdown_table(["Cell", "Reason"], lines))
    if notes := [*notes, *remarks(cells, rows, table)]:
        sections.append("## Notes\n\n" + _bullets(notes))
    return "\n\n".join(sections) + "\n"


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A pipe table; bars and line breaks within a field are escaped."""
    rows = [[" ".join(field.split()).replace("|", "\\|") for field in row] for row in (header, *lines)]
    rows.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def notices(cells: Sequence[Cell]) -> list[str]:
    """What the players say must stand beside their results."""
    return list(dict.fromkeys(str(cell.context["roles_notice"]) for cell in cells if cell.context.get("roles_notice")))


def warnings(cells: Sequence[Cell], rows: Sequence[Row], table: str | None) -> list[str]:
    """What must be known before any number is read."""
    said = [f"{notice[:1].upper()}{notice[1:].rstrip('.')}." for notice in notices(cells)]
    if others := stand_ins(rows, table):
        models = ", ".join(dict.fromkeys(row.model for row in rows if row.cells[0].backbone not in of_table(table)))
        names = ", ".join(stand_in_name(name) for name in others)
        said.append(
            f"Measured on {models}, which the paper has no numbers of. What stands under {names} is of that model, not of ours."
        )
    return [f"> **{sentence}**" for sentence in said]


def remarks(cells: Sequence[Cell], rows: Sequence[Row], table: str | None) -> list[str]:
    """Why some of our rows have no published value beside them, and which rows of the paper none of ours stands for."""
    models = dict.fromkeys((cell.backbone, cell.label, str(cell.context["path"])) for cell in cells if withheld(cell))
    said = [
        f"backbone={backbone} was loaded from {path}, which need not be the {name} of the paper: "
        "no published value stands beside it."
        for backbone, name, path in models
    ]
    if lacking := not_run(rows, table):
        names = ", ".join(f"{label(name)} (backbone={name})" for name in lacking)
        said.append(f"Rows of the paper's Table {table} that were not run: {names}.")
    return said


def what_was_run(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """(choice, every value it took)."""
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
    return [(name, ", ".join(values)) for name, values in distinct.items() if values] or [("cells", "none that left numbers")]


def legend(rows: Sequence[Row], table: str | None) -> str:
    """What the numbers of the main table are."""
    said = ["Q, Q_W and R-L in percent, B as is; n: test turns; unparsed: replies that name no known strategy, misses in Q."]
    if any(len(row.cells) > 1 for row in rows):
        said.append("Over several seeds: mean ± sample standard deviation.")
    if any(row.paper for row in rows) or stand_ins(rows, table):
        said.append(
            "paper: as published, measured on its own test turns of ExTES, with its own searched data and no constraint."
        )
    if any(verdict(row, metric) for row in rows for metric in METRICS):
        said.append(f"{MARKS} (over several seeds also within one standard deviation).")
    return " ".join(said)


def _difference_table(comparisons: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    lines = [
        [one.row.name, one.against.name, *(_difference(one.differences[metric]) for metric in METRICS), str(one.n)]
        for one in comparisons
    ]
    return ["Row", "less", *(HEADERS[metric] for metric in METRICS), "n"], lines


def _difference(difference: Difference) -> str:
    text = f"{difference.value:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"**{text}**" if difference.real else text


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
