"""Ours compared with the paper: better, within or worse where the model is the same; other models' scores in columns of their own."""

from collections.abc import Mapping, Sequence

from cso_lab.core.published import backbones_of, published_scores
from cso_lab.reporting.rows import LOWER_IS_BETTER, Row, backbone_label, published_row

BETTER, WITHIN, WORSE = "▲", "≈", "▼"
MARKS = f"{BETTER} ours is better than the published value, {WITHIN} that lies within our 95% interval, {WORSE} ours is worse"
# The paper's scores are of ExTES; on other dialogues neither better nor worse means anything.
_PAPER_DATA = ("extes", "escpro")


def verdict(row: Row, metric: str) -> str:
    """Returns BETTER, WITHIN or WORSE than the paper's score of this very row.

    WITHIN: the published score lies in our 95% interval over test turns (over several seeds, the mean of their intervals) or
    within one standard deviation over seeds of our mean, whichever is wider. "" if the paper has no score, we have no
    interval, or other dialogues were predicted.
    """
    bounds = _bounds(row, metric)
    if row.paper is None or bounds is None or any(cell.context.get("data") not in _PAPER_DATA for cell in row.cells):
        return ""
    published = row.paper[metric]
    if bounds[0] <= published <= bounds[1]:
        return WITHIN
    below = bounds[1] < published
    return BETTER if below == (metric in LOWER_IS_BETTER) else WORSE


def proxy_baselines(rows: Sequence[Row], table: str | None) -> list[str]:
    """Returns the paper's backbones of `table` whose scores are shown for rows of models the paper did not measure.

    These are the backbones whose hyperparameters the models take (`Cell.family`) or, where one of them is not in the table, all
    that the paper trained there. [] if every row is of a model of the table.
    """
    measured = backbones_of(table) if table else {}
    families = {cell.family for row in rows for cell in row.cells if cell.backbone not in measured}
    if not families:
        return []
    same_family = [name for name in measured if name in families]
    return same_family if len(same_family) == len(families) else [name for name, trained in measured.items() if trained]


def proxy_heading(backbone: str) -> str:
    """Returns the heading of a column with another model's published scores; it says that they are not ours."""
    return f"{backbone_label(backbone)} (paper)"


def proxy_scores(row: Row, backbone: str, table: str | None) -> Mapping[str, float] | None:
    """Returns the paper's {Q, B, Q_W, R-L} of the row's method on `backbone`; None if it has none or the row is of `backbone`."""
    method = published_row(row.cells[0])
    return None if row.cells[0].backbone == backbone or method is None else published_scores(backbone, method, table)


def api_models_not_run(rows: Sequence[Row], table: str | None) -> list[str]:
    """Returns the API models of the paper's table that no row is of."""
    measured = backbones_of(table) if table else {}
    run = {cell.backbone for row in rows for cell in row.cells}
    return [name for name, trained in measured.items() if not trained and name not in run]


def _bounds(row: Row, metric: str) -> tuple[float, float] | None:
    """Returns the range that `verdict` holds the published score against; None without interval and deviation."""
    mean, deviation = row.score(metric)
    intervals = [cell.intervals[metric] for cell in row.cells if metric in cell.intervals]
    ranges = [(mean - deviation, mean + deviation)] if deviation is not None else []
    if intervals:
        ranges.append((sum(low for low, _ in intervals) / len(intervals), sum(high for _, high in intervals) / len(intervals)))
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None
