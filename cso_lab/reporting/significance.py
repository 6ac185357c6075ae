"""Differences of each row to the untrained model and to SFT, by a paired bootstrap over the test turns of both rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from cso_lab.evaluation.paired import Difference, PairedBootstrap
from cso_lab.reporting.cells import Cell
from cso_lab.reporting.rows import Row

# How replies were made and on what data; rows that differ in these are not compared.
_SAME = ("data", "path", "constrain", "max_new_tokens", "testset", "measured_on", "served")
# What the keys of the training that a row starts from begin with.
_START = "algorithm.start."


@dataclass(frozen=True)
class PairedComparison:
    """A row minus a baseline row: {metric: Difference}, over the `n` test turns that both have."""

    row: Row
    baseline: Row
    differences: dict[str, Difference]
    n: int


def compare_rows(rows: Sequence[Row]) -> list[PairedComparison]:
    """Returns each row compared with the untrained model, with SFT in the same mode, and with a longer SFT.

    That SFT is the one the row's training starts from, if there is one; the longer SFT starts from the same model as the row. Rows are
    compared where they are of the same model, were generated in the same way, and share test turns; of the seeds, those that both have.
    """
    bootstrap = PairedBootstrap()
    comparisons = []
    for row in rows:
        for is_baseline in (_is_base, _is_sft, _is_longer_sft):
            baseline = _closest(row, [other for other in rows if is_baseline(row.cells[0], other.cells[0])])
            if baseline is None or baseline is row or not all(cell.turns for cell in (*row.cells, *baseline.cells)):
                continue
            differences, n = bootstrap.differences(*_turns_of_common_seeds(row, baseline))
            if n:
                comparisons.append(PairedComparison(row, baseline, differences, n))
    return comparisons


def _turns_of_common_seeds(row: Row, baseline: Row) -> tuple[list, list]:
    """Returns the turns of each row's cells, without the seeds that one row lacks; of all cells if they have no seed in common.

    Seeds differ by more than methods do. The untrained model has no seed.
    """
    common = {cell.seed for cell in row.cells} & {cell.seed for cell in baseline.cells}
    kept = ([cell.turns for cell in each.cells if not common or cell.seed in common] for each in (row, baseline))
    return tuple(kept)


def _is_base(cell: Cell, other: Cell) -> bool:
    return _comparable(cell, other) and other.algo == "base" and other.decoding == "plain"


def _is_sft(cell: Cell, other: Cell) -> bool:
    return _is_any_sft(cell, other) and other.start_from == "base"


def _is_longer_sft(cell: Cell, other: Cell) -> bool:
    return _is_any_sft(cell, other) and other.start_from == cell.start_from != "base"


def _is_any_sft(cell: Cell, other: Cell) -> bool:
    return _comparable(cell, other) and other.algo == "sft" and (cell.mode, cell.decoding) == (other.mode, other.decoding)


def _comparable(cell: Cell, other: Cell) -> bool:
    """Returns whether both are of one model and generated in the same way on the same data."""
    return cell.backbone == other.backbone and all(cell.context.get(key) == other.context.get(key) for key in _SAME)


def _closest(row: Row, candidates: Sequence[Row]) -> Row | None:
    """Returns the candidate that shares most of the values given on the command line with `row`; None without candidates.

    Of a candidate that may be what the row's training starts from, these are the values of the row's start.
    """
    cell = row.cells[0]

    def shared(other: Row) -> int:
        is_start = other.cells[0].start_from != cell.start_from
        given = {name.removeprefix(_START): value for name, value in cell.varied.items() if name.startswith(_START) == is_start}
        return len(given.items() & other.cells[0].varied.items())

    return max(candidates, key=shared, default=None)
