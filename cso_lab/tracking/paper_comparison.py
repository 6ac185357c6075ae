"""One cell beside the paper: a table, and numbers to draw bars of."""

from pathlib import Path

from cso_lab.core.published import label
from cso_lab.reporting.cells import METRICS, read_cells
from cso_lab.reporting.comparison import stand_in_values, stand_ins
from cso_lab.reporting.rows import table_rows
from cso_lab.tracking.contents import Table

PAPER, DIFFERENCE = "paper", "difference_to_paper"
_COLUMNS = ["metric", "ours", "low", "high", "paper's model", "paper", "difference", "data"]


def paper_comparison(folder: Path, table: str | None) -> tuple[dict[str, float], Table]:
    """({"paper/Q": ..., "difference_to_paper/Q": ours - the paper's}, table) of a cell, from its metrics.json.

    Numbers are given, and differences taken, only where the paper measured this very model and method; what it has for another model of
    the family stands in the table alone. The data are named beside: the paper's numbers are of ExTES.
    """
    (row,) = table_rows(read_cells([folder]), table)
    (cell,) = row.cells
    numbers, lines = {}, []
    for metric in METRICS:
        ours, bounds = cell.scores[metric], cell.intervals.get(metric, (None, None))
        if row.paper:
            paper = row.paper[metric]
            numbers |= {f"{PAPER}/{metric}": paper, f"{DIFFERENCE}/{metric}": round(ours - paper, 4)}
            beside = [(row.model, paper, round(ours - paper, 4))]
        else:
            others = ((name, stand_in_values(row, name, table)) for name in stand_ins([row], table))
            beside = [(label(name), values[metric], None) for name, values in others if values] or [(None, None, None)]
        lines += [[metric, ours, *bounds, *values, cell.context.get("data")] for values in beside]
    return numbers, Table(_COLUMNS, lines)
