"""Differences of each row to the untrained model and to SFT, by a paired bootstrap over the test turns of both rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from cso_lab.evaluation.paired import Difference, PairedBootstrap
from cso_lab.reporting.cells import Cell
from cso_lab.reporting.rows import Row

# How replies were made and on what data; rows that differ in these are not compared.
_SAME = ("data", "path", "constrain", "max_new_tokens", "testset", "measured_on", "served")


@dataclass(frozen=True)
class PairedComparison:
    """A row minus a baseline row: {metric: Difference}, over the `n` test turns that both have."""

    row: Row
    baseline: Row
    differences: dict[str, Difference]
    n: int


def compare_rows(rows: Sequence[Row]) -> list[PairedComparison]:
    """Returns each row compared with the untrained model and, of a preference-trained row, with SFT in the same mode.

    Rows are compared where they are of the same model, were generated in the same way, and share test turns.
    """
    bootstrap = PairedBootstrap()
    comparisons = []
    for row in rows:
        for is_baseline in (_is_base, _is_sft):
            baseline = _closest(row, [other for other in rows if is_baseline(row.cells[0], other.cells[0])])
            if baseline is None or baseline is row or not all(cell.turns for cell in (*row.cells, *baseline.cells)):
                continue
            differences, n = bootstrap.differences([c.turns for c in row.cells], [c.turns for c in baseline.cells])
            if n:
                comparisons.append(PairedComparison(row, baseline, differences, n))
    return comparisons


def _is_base(cell: Cell, other: Cell) -> bool:
    return _comparable(cell, other) and other.algo == "base" and other.decoding == "plain"


def _is_sft(cell: Cell, other: Cell) -> bool:
    return _comparable(cell, other) and other.algo == "sft" and (cell.mode, cell.decoding) == (other.mode, other.decoding)


def _comparable(cell: Cell, other: Cell) -> bool:
    """Returns whether both are of one model and generated in the same way on the same data."""
    return cell.backbone == other.backbone and all(cell.context.get(key) == other.context.get(key) for key in _SAME)


def _closest(row: Row, candidates: Sequence[Row]) -> Row | None:
    """Returns the candidate that shares most of the values given on the command line with `row`; None without candidates."""
    typed = set(row.cells[0].varied.items())
    return max(candidates, key=lambda other: len(typed & set(other.cells[0].varied.items())), default=None)
