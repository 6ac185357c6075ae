"""Which differences to the untrained model and to SFT are real: a paired bootstrap over the test turns of the rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from cso_lab.evaluation.paired import Difference, PairedBootstrap
from cso_lab.reporting.cells import Cell
from cso_lab.reporting.rows import Row

# How replies were made and on what; rows that differ here are not set against each other.
_ALIKE = ("data", "path", "constrain", "max_new_tokens", "testset", "served")


@dataclass(frozen=True)
class Compared:
    """A row, the row it is set against, {metric: Difference} between them, and on how many test turns."""

    row: Row
    against: Row
    differences: dict[str, Difference]
    n: int


def compared(rows: Sequence[Row]) -> list[Compared]:
    """Every row against the untrained model, and every preference-trained one against SFT in its mode, as far as they have the same
    model and the same turns."""
    bootstrap = PairedBootstrap()
    found = []
    for row in rows:
        for kind in (_is_base, _is_sft):
            against = _closest(row, [other for other in rows if kind(row.cells[0], other.cells[0])])
            if against is None or against is row or not all(cell.turns for cell in (*row.cells, *against.cells)):
                continue
            differences, n = bootstrap.differences([c.turns for c in row.cells], [c.turns for c in against.cells])
            if n:
                found.append(Compared(row, against, differences, n))
    return found


def _is_base(cell: Cell, other: Cell) -> bool:
    return _alike(cell, other) and other.algo == "base" and other.decoding == "plain"


def _is_sft(cell: Cell, other: Cell) -> bool:
    return _alike(cell, other) and other.algo == "sft" and (cell.mode, cell.decoding) == (other.mode, other.decoding)


def _alike(cell: Cell, other: Cell) -> bool:
    """Whether the two have one model and were asked for the same kind of replies."""
    return cell.backbone == other.backbone and all(cell.context.get(key) == other.context.get(key) for key in _ALIKE)


def _closest(row: Row, candidates: Sequence[Row]) -> Row | None:
    """Of several rows one could be set against, that which shares most of the values given on the command line."""
    given = set(row.cells[0].varied.items())
    return max(candidates, key=lambda other: len(given & set(other.cells[0].varied.items())), default=None)
