"""Rows of a results table: cells that differ in nothing but the seed, in the paper's order, with the paper's scores."""

import json
import statistics
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import yaml

from cso_lab.config import CONF
from cso_lab.core.published import backbones, published_scores
from cso_lab.reporting.cells import Cell

HEADERS = {"Q": "Q ↑", "B": "B ↓", "Q_W": "Q_W ↑", "R-L": "R-L ↑"}
LOWER_IS_BETTER = ("B",)
# As in Tables 2, 4 and 9 to 12.
_MODES = (None, "full", "lora")
_DECODINGS = ("plain", "direct_refine", "self_refine", "with_example")
_ALGORITHMS = ("base", "sft", "dpo", "simpo", "ipo", "kto", "orpo")
_PREFERENCES = (None, "escpro", "random")
# Values that follow from others or from the data, and so do not tell cells apart.
_CONSEQUENCES = (
    "data_file",
    "test_file",
    "test_turns",
    "training_rows",
    "training_steps",
    "start_training_rows",
    "start_training_steps",
    "preference_dialogues",
    "roles_notice",
    "seed",
    "served_at",
    "usage",
    "shortened_prompts",
)


@dataclass(frozen=True)
class Row:
    """One row: its cells, one per seed, and the paper's {Q, B, Q_W, R-L} or None; `mark` tells rows of one name apart."""

    model: str
    tuning: str
    method: str
    cells: tuple[Cell, ...]
    paper: Mapping[str, float] | None
    mark: str = ""

    @property
    def name(self) -> str:
        """The row's name, such as "SmolLM2-135M-Instruct, LoRA, CSO-DPO"."""
        return ", ".join(part for part in (self.model, self.tuning, self.full_method) if part)

    @property
    def full_method(self) -> str:
        """The method, with the mark that tells it from rows of the same name."""
        return f"{self.method} [{self.mark}]" if self.mark else self.method

    def score(self, metric: str) -> tuple[float, float | None]:
        """Returns mean and sample standard deviation of a metric over the seeds; a single seed has no deviation."""
        return mean_and_deviation([cell.scores[metric] for cell in self.cells])


def method_name(cell: Cell) -> str:
    """Returns the method of a cell as the paper's tables print it, such as "CSO-DPO" or "Self-Refine"."""
    plain = cell.decoding == "plain"
    if cell.algo == "base":
        return cell.algo_label if plain else str(cell.decoding_label or cell.decoding)
    name = cell.algo_label
    if cell.preferences not in (None, "escpro"):
        name = f"{name}, {cell.preferences} pairs"
    if cell.start_from != "base":
        name = f"{name} after {cell.start_label or cell.start_from.upper()}"
    return name if plain else f"{name}, {cell.decoding_label or cell.decoding}"


def model_name(cell: Cell) -> str:
    """Returns the label of a cell's model; of another model than the backbone's own its path, after a label of the user's."""
    path = cell.context.get("path")
    if not path or path == cell.label:
        return cell.label
    return path if cell.label == backbone_label(cell.backbone) else f"{cell.label} (path={path})"


def backbone_label(backbone: str) -> str:
    """Returns how the paper's tables print a backbone."""
    file = CONF / "backbone" / f"{backbone}.yaml"
    return str(yaml.safe_load(file.read_text(encoding="utf-8"))["label"]) if file.is_file() else backbone


def paper_scores(cell: Cell, table: str | None = None) -> Mapping[str, float] | None:
    """Returns the paper's {Q, B, Q_W, R-L} of this very cell, from `table` if it is there; None if the paper has none.

    It has none where another model was loaded under the backbone's name, or the dialogues are not test dialogues.
    """
    return None if cell.context.get("path") or cell.context.get("measured_on") else _published(cell, table)


def withholds_paper(cell: Cell) -> bool:
    """Returns whether the paper has scores for the cell's backbone and method, but another model was loaded under its name."""
    return bool(cell.context.get("path")) and _published(cell, None) is not None


def published_row(cell: Cell) -> str | None:
    """Returns the paper's row of the cell's method ("base", "lora.dpo", ...), whatever its model; None if there is none."""
    if cell.algo == "base":
        return "base" if cell.decoding == "plain" else cell.decoding
    if cell.start_from != "base" or cell.decoding != "plain" or cell.context.get("rounds"):
        return None
    if cell.preferences == "random":
        return "random" if (cell.mode, cell.algo) == ("lora", "dpo") else None
    return f"{cell.mode}.{cell.algo}"


def _published(cell: Cell, table: str | None) -> Mapping[str, float] | None:
    row = published_row(cell)
    return row and published_scores(cell.backbone, row, table)


def table_rows(cells: Iterable[Cell], table: str | None = None) -> list[Row]:
    """Returns the cells as rows in the paper's order; `table` ("9") is the paper's table whose scores are looked up first.

    Cells of one row differ in nothing but the seed. If a seed occurs twice, the cells differ in something that they do not record,
    so the second one starts a new row: no mean is taken over cells that may differ.
    """
    groups: dict[tuple, list[Cell]] = defaultdict(list)
    repeats: dict[tuple, int] = defaultdict(int)
    for cell in cells:
        identity = _identity(cell)
        run = repeats[identity, cell.seed] = repeats[identity, cell.seed] + 1
        groups[*identity, run].append(cell)
    rows = []
    for members in groups.values():
        members.sort(key=lambda cell: (cell.seed is not None, cell.seed or 0))
        first = members[0]
        rows.append(
            Row(model_name(first), first.mode_label or "", method_name(first), tuple(members), paper_scores(first, table))
        )
    return sorted(_marked(rows), key=lambda row: (*_rank(row.cells[0]), row.mark))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns mean and sample standard deviation (n - 1); the latter is None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _identity(cell: Cell) -> tuple:
    """Returns everything that tells a cell from others, but for its seed and its numbers."""
    return (
        *(cell.backbone, cell.label, cell.algo, cell.mode, cell.decoding, cell.start_from, cell.preferences, cell.variant),
        json.dumps(choices(cell), sort_keys=True, default=str),
    )


def choices(cell: Cell) -> dict:
    """Returns the parts of a cell's context that the user chose, without those that follow from other choices."""
    return {key: value for key, value in cell.context.items() if key not in _CONSEQUENCES}


def _marked(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows; those of one name are marked with the values in which they differ."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[row.name].append(row)
    marked = []
    for same in by_name.values():
        marks = _marks([row.cells[0] for row in same])
        marked += [replace(row, mark=mark) if len(same) > 1 else row for row, mark in zip(same, marks, strict=True)]
    return marked


def _marks(cells: Sequence[Cell]) -> list[str]:
    """Returns a mark for each cell: the choices and typed values in which the cells differ (a value that was not typed is left out).

    Cells that these do not distinguish are marked with their variant, then with a number.
    """
    typed_keys = dict.fromkeys(key for cell in cells for key in cell.varied)
    marks = differing([choices(cell) | dict(cell.varied) for cell in cells], typed_keys)
    for further in ([f"variant {cell.variant}" for cell in cells], [f"run {n}" for n in range(1, len(cells) + 1)]):
        if len(set(marks)) < len(marks) and len(set(further)) > 1:
            marks = [", ".join(filter(None, pair)) for pair in zip(marks, further, strict=True)]
    return marks


def differing(value_sets: Sequence[Mapping], optional: Container[str] = ()) -> list[str]:
    """Returns for each set of values those in which the sets differ, as "key=value, ..."; a missing one is "key=None".

    A missing value whose key is in `optional` is left out.
    """
    keys = [
        key
        for key in dict.fromkeys(key for values in value_sets for key in values)
        if len({str(values.get(key)) for values in value_sets}) > 1
    ]
    return [
        ", ".join(f"{key}={values.get(key)}" for key in keys if key in values or key not in optional) for values in value_sets
    ]


def _rank(cell: Cell) -> tuple:
    return (
        _position(cell.backbone, backbones()),
        _position(cell.mode, _MODES),
        _position(cell.algo, _ALGORITHMS),
        _position(cell.preferences, _PREFERENCES),
        cell.start_from != "base",
        _position(cell.decoding, _DECODINGS),
    )


def _position(name: str | None, order: Sequence[str | None]) -> tuple[int, str]:
    """Returns a sort key: names in the paper's order first, others by name after them."""
    return (order.index(name), "") if name in order else (len(order), str(name))
