"""Figure 4: the scores over the amount of preference data, one line an algorithm and mode of a model, its SFT dashed."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cso_lab.reporting.cells import METRICS, Cell
from cso_lab.reporting.figures import STYLES, save
from cso_lab.reporting.rows import HEADERS, Row, choices, differing, mean_and_deviation

NAME = "figure4"
# How many expanded dialogues a cell was trained on, as its metrics.json says.
VOLUME = "preference_dialogues"
# What is set on the command line to vary it.
_AMOUNTS = ("preferences.dialogues", "data.seed_dialogues")


@dataclass(frozen=True)
class Curve:
    """A line of the figure. `points`: the cells of all seeds by number of dialogues, in ascending order; 0 is the untrained model.

    `sft`: the cells of SFT rows, by the row's name, whose scores are drawn as horizontal lines.
    """

    name: str
    points: Mapping[int, tuple[Cell, ...]]
    sft: Mapping[str, tuple[Cell, ...]]

    def values(self, metric: str) -> Iterator[tuple[float, float | None]]:
        """Yields the mean and standard deviation over the seeds of every point."""
        return (mean_and_deviation([cell.scores[metric] for cell in cells]) for cells in self.points.values())

    def levels(self, metric: str) -> Iterator[tuple[str, float]]:
        """Yields (name, mean over the seeds) of every SFT row."""
        return ((name, mean_and_deviation([cell.scores[metric] for cell in cells])[0]) for name, cells in self.sft.items())


def write_volume_figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Draws figure4.png and figure4.svg into `out` and returns their paths; [] if nothing was trained on two amounts of data.

    The untrained model stands at 0 dialogues. Over several seeds: the mean, with the sample standard deviation as a bar.
    """
    lines = curves(rows)
    if not lines:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(METRICS), 3.6), layout="constrained")
    panels = figure.subplots(1, len(METRICS))
    for curve, (colour, marker) in zip(lines, STYLES * len(lines), strict=False):
        for panel, metric in zip(panels, METRICS, strict=True):
            values = list(curve.values(metric))
            panel.errorbar(
                list(curve.points),
                [mean for mean, _ in values],
                yerr=[deviation or 0 for _, deviation in values],
                color=colour,
                marker=marker,
                label=curve.name,
                capsize=2,
            )
            for name, level in curve.levels(metric):
                panel.axhline(level, color=colour, linestyle="--", linewidth=1, label=name)
    for panel, metric in zip(panels, METRICS, strict=True):
        panel.set_title(HEADERS[metric])
        panel.set_xlabel("dialogues of preference data")
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return save(figure, out, NAME)


def curves(rows: Sequence[Row]) -> list[Curve]:
    """Returns a line for each set of at least two trained rows that differ in the amount of data alone, in the order of the rows."""
    trained: dict[tuple, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        volume = row.cells[0].context.get(VOLUME)
        if row.cells[0].algo not in ("base", "sft") and volume is not None:
            # Rows with the same resulting amount (all dialogues, or more than exist) are the same training.
            trained[row.model, row.tuning, row.method, str(_circumstances(row))].setdefault(int(volume), row)
    series = [dict(sorted(points.items())) for points in trained.values() if len(points) > 1]
    firsts = [next(iter(points.values())) for points in series]
    names = _names(firsts)
    sft = _sft(rows, firsts)
    return [
        Curve(name, {volume: row.cells for volume, row in (_untrained(rows, first) | points).items()}, levels)
        for name, points, first, levels in zip(names, series, firsts, sft, strict=True)
    ]


def _circumstances(row: Row) -> dict:
    """Returns the choices and typed values of a row, without those that are the amount of data."""
    cell = row.cells[0]
    values = choices(cell) | dict(cell.varied)
    return {key: values[key] for key in sorted(values) if key not in _AMOUNTS}


def _names(rows: Sequence[Row]) -> list[str]:
    """Returns the names of the lines that begin with these rows; equal names are followed by the values in which the lines differ."""
    plain = [", ".join(filter(None, (row.model, row.tuning, row.method))) for row in rows]
    groups = [[other for other, name in zip(rows, plain, strict=True) if name == label] for label in plain]
    marks = [
        differing([_circumstances(other) for other in group])[group.index(row)] for row, group in zip(rows, groups, strict=True)
    ]
    return [f"{name} [{mark}]" if mark else name for name, mark in zip(plain, marks, strict=True)]


def _untrained(rows: Sequence[Row], first: Row) -> dict[int, Row]:
    """Returns {0: the row of the untrained model}, or {} if it was not measured under the same choices as `first`."""
    plain = (row for row in rows if row.cells[0].algo == "base" and row.cells[0].decoding == "plain")
    base = next((row for row in plain if row.model == first.model and _agree(row, first)), None)
    return {} if base is None else {0: base}


def _sft(rows: Sequence[Row], firsts: Sequence[Row]) -> list[dict[str, tuple[Cell, ...]]]:
    """Returns for every line its SFT rows. A row goes to the first line of its model, preferably one of the same mode."""
    levels: list[dict] = [{} for _ in firsts]
    for row in rows:
        if row.cells[0].algo != "sft":
            continue
        indices = [index for index, first in enumerate(firsts) if first.model == row.model]
        alike = [index for index in indices if firsts[index].tuning == row.tuning and _agree(row, firsts[index])]
        if indices:
            levels[(alike or indices)[0]][row.name] = row.cells
    return levels


def _agree(one: Row, other: Row) -> bool:
    """Returns whether all choices and typed values that both rows have are equal."""
    values, other_values = _circumstances(one), _circumstances(other)
    return all(values[key] == other_values[key] for key in values.keys() & other_values.keys())
