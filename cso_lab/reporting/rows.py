"""The rows of a table: cells that differ in nothing but the seed, in the paper's order, beside the paper's values."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cso_lab.core.published import backbones, published
from cso_lab.reporting.cells import Cell

NONE = "–"
HEADERS = {"Q": "Q ↑", "B": "B ↓", "Q_W": "Q_W ↑", "R-L": "R-L ↑"}
LOWER_IS_BETTER = ("B",)
# As in Tables 2, 4 and 9 to 12.
_MODES = (None, "full", "lora")
_DECODINGS = ("plain", "direct_refine", "self_refine", "with_example")
_ALGORITHMS = ("base", "sft", "dpo", "simpo", "ipo", "kto", "orpo")
_PREFERENCES = (None, "escpro", "random")
# Follow from the other values, or from the data, and make no cell another one.
_CONSEQUENCES = (
    "test_turns",
    "training_rows",
    "training_steps",
    "preference_dialogues",
    "roles_notice",
    "seed",
    "served_at",
    "usage",
)


@dataclass(frozen=True)
class Row:
    """One row: the cells of all its seeds, and the paper's {Q, B, Q_W, R-L} or None. `mark` tells rows of one name apart."""

    model: str
    tuning: str
    method: str
    cells: tuple[Cell, ...]
    paper: Mapping[str, float] | None
    mark: str = ""

    @property
    def name(self) -> str:
        """The row in words: "SmolLM2-135M-Instruct, LoRA, CSO-DPO"."""
        return ", ".join(part for part in (self.model, self.tuning, self.full_method) if part)

    @property
    def full_method(self) -> str:
        """The method, with what tells it from rows of the same name."""
        return f"{self.method} [{self.mark}]" if self.mark else self.method


def method_name(cell: Cell) -> str:
    """What the cell does to its backbone, as the paper's tables print it."""
    plain = cell.decoding == "plain"
    if cell.algo == "base":
        return cell.algo_label if plain else str(cell.decoding_label or cell.decoding)
    name = cell.algo_label
    if cell.preferences not in (None, "escpro"):
        name = f"{name}, {cell.preferences} pairs"
    if cell.start_from != "base":
        name = f"{name} after {cell.start_from.upper()}"
    return name if plain else f"{name}, {cell.decoding_label or cell.decoding}"


def model_name(cell: Cell) -> str:
    """The model, with where it was loaded from when that is not the backbone's own path."""
    path = cell.context.get("path")
    return f"{cell.label} (path={path})" if path else cell.label


def paper_values(cell: Cell, table: str | None = None) -> Mapping[str, float] | None:
    """The paper's value of this very cell, from `table` if it is there; None where the paper has none for the backbone.

    None too where another model was loaded under the backbone's name: the paper has not measured that one.
    """
    return None if cell.context.get("path") else _published(cell, table)


def withheld(cell: Cell) -> bool:
    """Whether the paper has a value for the cell's backbone and method, but another model was loaded."""
    return bool(cell.context.get("path")) and _published(cell, None) is not None


def published_row(cell: Cell) -> str | None:
    """Which of the paper's rows does what the cell does, whatever its model; None where none does."""
    if cell.algo == "base":
        return "base" if cell.decoding == "plain" else cell.decoding
    if cell.start_from != "base" or cell.decoding != "plain":
        return None
    if cell.preferences == "random":
        return "random" if (cell.mode, cell.algo) == ("lora", "dpo") else None
    return f"{cell.mode}.{cell.algo}"


def _published(cell: Cell, table: str | None) -> Mapping[str, float] | None:
    row = published_row(cell)
    return row and published(cell.backbone, row, table)


def table_rows(cells: Iterable[Cell], table: str | None = None) -> list[Row]:
    """The cells as rows in the paper's order. `table` names the paper's table whose values stand beside them.

    Cells of one row differ in nothing but the seed. A seed that comes twice means that something else differs which the cells
    do not tell, so the second is a row of its own: no mean is taken over what may not be alike.
    """
    groups: dict[tuple, list[Cell]] = defaultdict(list)
    seen: dict[tuple, int] = defaultdict(int)
    for cell in cells:
        identity = _identity(cell)
        run = seen[identity, cell.seed] = seen[identity, cell.seed] + 1
        groups[*identity, run].append(cell)
    rows = []
    for members in groups.values():
        members.sort(key=lambda cell: (cell.seed is not None, cell.seed or 0))
        first = members[0]
        rows.append(
            Row(model_name(first), first.mode_label or "", method_name(first), tuple(members), paper_values(first, table))
        )
    return sorted(_told_apart(rows), key=lambda row: (*_rank(row.cells[0]), row.mark))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); a single value has no deviation."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _identity(cell: Cell) -> tuple:
    """Everything a cell is, but for its seed and its numbers."""
    return (
        *(cell.backbone, cell.label, cell.algo, cell.mode, cell.decoding, cell.start_from, cell.preferences, cell.variant),
        json.dumps(_choices(cell), sort_keys=True, default=str),
    )


def _choices(cell: Cell) -> dict:
    return {key: value for key, value in cell.context.items() if key not in _CONSEQUENCES}


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """The same rows; those of one name are marked with the choices in which they differ."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[row.name].append(row)
    marked = []
    for same in by_name.values():
        marks = _marks([row.cells[0] for row in same])
        marked += [replace(row, mark=mark) if len(same) > 1 else row for row, mark in zip(same, marks, strict=True)]
    return marked


def _marks(cells: Sequence[Cell]) -> list[str]:
    """What tells these cells apart: the choices and the values given on the command line in which they differ (where none was
    given, none is said); where that is not enough the variant, then a number."""
    said = [_choices(cell) | dict(cell.varied) for cell in cells]
    keys = dict.fromkeys(key for values in said for key in values)
    differing = [key for key in keys if len({str(values.get(key)) for values in said}) > 1]
    given = dict.fromkeys(key for cell in cells for key in cell.varied)
    marks = [", ".join(f"{key}={values.get(key)}" for key in differing if key in values or key not in given) for values in said]
    for further in ([f"variant {cell.variant}" for cell in cells], [f"run {n}" for n in range(1, len(cells) + 1)]):
        if len(set(marks)) < len(marks) and len(set(further)) > 1:
            marks = [", ".join(filter(None, pair)) for pair in zip(marks, further, strict=True)]
    return marks


def _rank(cell: Cell) -> tuple:
    return (
        _place(cell.backbone, backbones()),
        _place(cell.mode, _MODES),
        _place(cell.algo, _ALGORITHMS),
        _place(cell.preferences, _PREFERENCES),
        cell.start_from != "base",
        _place(cell.decoding, _DECODINGS),
    )


def _place(name: str | None, order: Sequence[str | None]) -> tuple[int, str]:
    """The paper's order first, anything else by name after it."""
    return (order.index(name), "") if name in order else (len(order), str(name))
