"""report.csv: one line a cell and seed."""

import csv
import io
from collections.abc import Sequence

from cso_lab.reporting.cells import METRICS, Cell
from cso_lab.reporting.comparison import stand_in_name, stand_in_values, stand_ins
from cso_lab.reporting.rows import Row, paper_values


def csv_text(rows: Sequence[Row], table: str | None) -> str:
    """One line a cell and seed, plain numbers; the paper's columns only where any cell has such a value,
    and those of other models under their names."""
    with_paper = any(row.paper for row in rows)
    others = stand_ins(rows, table)
    records = [_record(row, cell, table, with_paper, others) for row in rows for cell in row.cells]
    columns = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _record(row: Row, cell: Cell, table: str | None, with_paper: bool, others: Sequence[str]) -> dict:
    own = ("backbone", "label", "mode", "algo", "algo_label", "start_from", "decoding", "preferences", "variant", "seed")
    record = {
        "row": row.name,
        **{key: getattr(cell, key) for key in own},
        **cell.scores,
        "n": cell.n,
        "unparsed": cell.unparsed,
    }
    for metric in METRICS:
        low, high = cell.intervals.get(metric, (None, None))
        record |= {f"{metric}_low": low, f"{metric}_high": high}
    if with_paper:
        paper = paper_values(cell, table) or {}
        record |= {f"{metric}_paper": paper.get(metric) for metric in METRICS}
    for backbone in others:
        values = stand_in_values(row, backbone, table) or {}
        record |= {f"{stand_in_name(backbone)} {metric}": values.get(metric) for metric in METRICS}
    context = {key: cell.choice(key) for key in cell.context if key not in record} | dict(cell.varied)
    return (
        record
        | {f"F1 {name}": values["f1"] for name, values in cell.strategies.items()}
        | context
        | {"folder": cell.folder.name}
    )
