"""Ours beside the paper's: better, within, or worse where the model is the same; in columns of their own where it is another."""

from collections.abc import Iterable, Mapping, Sequence

from cso_lab.core.published import label, of_table, published
from cso_lab.reporting.cells import METRICS
from cso_lab.reporting.rows import HEADERS, LOWER_IS_BETTER, NONE, Row, mean_and_deviation, published_row

BETTER, WITHIN, WORSE = "▲", "≈", "▼"
MARKS = f"{BETTER} ours is better than the published value, {WITHIN} that lies within our 95% interval, {WORSE} ours is worse"
# The paper's numbers are of ExTES; on other dialogues neither better nor worse means anything.
_THE_PAPERS_DATA = ("extes", "escpro")


def main_table(rows: Sequence[Row], table: str | None = None) -> tuple[list[str], list[list[str]]]:
    """(header, lines): Q, B, Q_W and R-L, as mean ± sample standard deviation where there are several seeds, each beside the
    paper's value if any row has one; n, unparsed, the number of seeds, and what the paper has for other models (`stand_in_columns`)."""
    with_paper = any(row.paper for row in rows)
    header = ["Model", "Tuning", "Method"]
    for metric in METRICS:
        header += [HEADERS[metric], "paper"] if with_paper else [HEADERS[metric]]
    beside = stand_in_columns(rows, table)
    lines = []
    for row, *foreign in zip(rows, *beside.values(), strict=True):
        line = [row.model, row.tuning or NONE, row.full_method]
        for metric in METRICS:
            line.append(measured([cell.scores[metric] for cell in row.cells]))
            if with_paper:
                line.append(f"{row.paper[metric]:.2f} {verdict(row, metric)}".strip() if row.paper else NONE)
        seeds = [cell.seed for cell in row.cells if cell.seed is not None]
        line += [_span(cell.n for cell in row.cells), _span(cell.unparsed for cell in row.cells), str(len(seeds) or NONE)]
        lines.append([*line, *foreign])
    return [*header, "n", "unparsed", "seeds", *beside], lines


def measured(values: Sequence[float]) -> str:
    """A value, or mean ± sample standard deviation of several."""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def verdict(row: Row, metric: str) -> str:
    """BETTER, WITHIN or WORSE than the paper's value of this very row; "" where it has none, we have no interval, or
    other dialogues were predicted.

    WITHIN: the published value lies in our 95% interval over test turns, with several seeds in the mean of theirs, or within one
    standard deviation over seeds of our mean, whichever is wider.
    """
    bounds = _bounds(row, metric)
    if row.paper is None or bounds is None or any(cell.context.get("data") not in _THE_PAPERS_DATA for cell in row.cells):
        return ""
    published_value = row.paper[metric]
    if bounds[0] <= published_value <= bounds[1]:
        return WITHIN
    below = bounds[1] < published_value
    return BETTER if below == (metric in LOWER_IS_BETTER) else WORSE


def stand_ins(rows: Sequence[Row], table: str | None) -> list[str]:
    """The paper's backbones of `table` that stand beside rows of other models: those of the models' families, or else all that the
    paper trained there. None where every row is of a model the paper measured."""
    measured = of_table(table) if table else {}
    families = {cell.family for row in rows for cell in row.cells if cell.backbone not in measured}
    if not families:
        return []
    own = [name for name in measured if name in families]
    return own if len(own) == len(families) else [name for name, trained in measured.items() if trained]


def stand_in_name(backbone: str) -> str:
    """How a column of another model's values is headed, so that nobody takes them for ours."""
    return f"{label(backbone)} (paper)"


def stand_in_values(row: Row, backbone: str, table: str | None) -> Mapping[str, float] | None:
    """{Q, B, Q_W, R-L} that the paper has for the row's method on `backbone`; None for the rows of that backbone itself."""
    method = published_row(row.cells[0])
    return None if row.cells[0].backbone == backbone or method is None else published(backbone, method, table)


def stand_in_columns(rows: Sequence[Row], table: str | None) -> dict[str, list[str]]:
    """{heading: one field a row}: the paper's four values of the row's method on another model, in one column."""
    columns = {}
    for backbone in stand_ins(rows, table):
        found = [stand_in_values(row, backbone, table) for row in rows]
        fields = [" / ".join(f"{values[metric]:.2f}" for metric in METRICS) if values else NONE for values in found]
        columns[f"{stand_in_name(backbone)}: {' / '.join(METRICS)}"] = fields
    return columns


def not_run(rows: Sequence[Row], table: str | None) -> list[str]:
    """The API models of the paper's table that no row is of."""
    measured = of_table(table) if table else {}
    run = {cell.backbone for row in rows for cell in row.cells}
    return [name for name, trained in measured.items() if not trained and name not in run]


def _bounds(row: Row, metric: str) -> tuple[float, float] | None:
    """Where the true value of a row may lie, as `verdict` says."""
    mean, deviation = mean_and_deviation([cell.scores[metric] for cell in row.cells])
    bounds = [cell.intervals[metric] for cell in row.cells if metric in cell.intervals]
    ranges = [(mean - deviation, mean + deviation)] if deviation is not None else []
    if bounds:
        ranges.append((sum(low for low, _ in bounds) / len(bounds), sum(high for _, high in bounds) / len(bounds)))
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def _span(counts: Iterable[int | None]) -> str:
    known = sorted({count for count in counts if count is not None})
    return NONE if not known else str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"
