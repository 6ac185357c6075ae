"""One cell compared with the paper: a table, and numbers for bar charts."""

from pathlib import Path

from cso_lab.core.tables import Table
from cso_lab.reporting.cells import METRICS, read_cells
from cso_lab.reporting.comparison import proxy_baselines, proxy_scores
from cso_lab.reporting.rows import backbone_label, table_rows

PAPER, DIFFERENCE = "paper", "difference_to_paper"
_COLUMNS = ["metric", "ours", "low", "high", "paper's model", "paper", "difference", "data"]


def paper_comparison(folder: Path, table: str | None) -> tuple[dict[str, float], Table]:
    """Returns ({"paper/Q": ..., "difference_to_paper/Q": ours minus the paper's}, table) of a cell, from its metrics.json.

    There are numbers and differences only where the paper measured this very model and method. The paper's scores of another
    model of the family are in the table alone. The table names the data, since the paper's scores are of ExTES.
    """
    (row,) = table_rows(read_cells([folder]), table)
    (cell,) = row.cells
    numbers, rows = {}, []
    for metric in METRICS:
        ours, bounds = cell.scores[metric], cell.intervals.get(metric, (None, None))
        if row.paper:
            paper = row.paper[metric]
            numbers |= {f"{PAPER}/{metric}": paper, f"{DIFFERENCE}/{metric}": round(ours - paper, 4)}
            published = [(row.model, paper, round(ours - paper, 4))]
        else:
            proxies = ((name, proxy_scores(row, name, table)) for name in proxy_baselines([row], table))
            published = [(backbone_label(name), scores[metric], None) for name, scores in proxies if scores]
        for values in published or [(None, None, None)]:
            rows.append([metric, ours, *bounds, *values, cell.context.get("data")])
    return numbers, Table("Ours beside the paper's", _COLUMNS, rows)
