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
    """A line of the figure: the cells of all seeds by the number of dialogues, in its order; 0 is the untrained model, if that was
    measured. `sft` holds the rows whose level is drawn beside this line, by their names."""

    name: str
    points: Mapping[int, tuple[Cell, ...]]
    sft: Mapping[str, tuple[Cell, ...]]

    def values(self, metric: str) -> Iterator[tuple[float, float | None]]:
        """Mean and standard deviation over the seeds of every point."""
        return (mean_and_deviation([cell.scores[metric] for cell in cells]) for cells in self.points.values())

    def levels(self, metric: str) -> Iterator[tuple[str, float]]:
        """(name, mean over the seeds) of every level."""
        return ((name, mean_and_deviation([cell.scores[metric] for cell in cells])[0]) for name, cells in self.sft.items())


def write_volume_figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Draw figure4.png and figure4.svg into `out`; [] where nothing was trained on two amounts of data.

    The untrained model stands at 0 dialogues. Over several seeds: the mean, with the sample standard deviation as a bar.
    """
    found = curves(rows)
    if not found:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(METRICS), 3.6), layout="constrained")
    panels = figure.subplots(1, len(METRICS))
    for curve, (colour, marker) in zip(found, STYLES * len(found), strict=False):
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
    """The lines, in the order of the rows: one for all that differs in nothing but the amount of data and the seed. What was trained
    on fewer than two amounts has none."""
    trained: dict[tuple, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        volume = row.cells[0].context.get(VOLUME)
        if row.cells[0].algo not in ("base", "sft") and volume is not None:
            # Where two rows come to the same amount (all dialogues, and more than there are), they are the same training.
            trained[row.model, row.tuning, row.method, str(_circumstances(row))].setdefault(int(volume), row)
    found = [dict(sorted(points.items())) for points in trained.values() if len(points) > 1]
    firsts = [next(iter(points.values())) for points in found]
    names = _names(firsts)
    sft = _sft(rows, firsts)
    return [
        Curve(name, {volume: row.cells for volume, row in (_untrained(rows, first) | points).items()}, levels)
        for name, points, first, levels in zip(names, found, firsts, sft, strict=True)
    ]


def _circumstances(row: Row) -> dict:
    """What else makes the row what it is, but for the amount of data."""
    cell = row.cells[0]
    said = choices(cell) | dict(cell.varied)
    return {key: said[key] for key in sorted(said) if key not in _AMOUNTS}


def _names(rows: Sequence[Row]) -> list[str]:
    """The names of lines that begin with these rows, with the circumstances in which lines of one name differ."""
    plain = [", ".join(filter(None, (row.model, row.tuning, row.method))) for row in rows]
    same = [[other for other, name in zip(rows, plain, strict=True) if name == own] for own in plain]
    marks = [
        differing([_circumstances(other) for other in others])[others.index(row)]
        for row, others in zip(rows, same, strict=True)
    ]
    return [f"{name} [{mark}]" if mark else name for name, mark in zip(plain, marks, strict=True)]


def _untrained(rows: Sequence[Row], first: Row) -> dict[int, Row]:
    """{0: the row of the untrained model that a line begins with}, empty where none was measured in the same circumstances."""
    plain = (row for row in rows if row.cells[0].algo == "base" and row.cells[0].decoding == "plain")
    found = next((row for row in plain if row.model == first.model and _agree(row, first)), None)
    return {} if found is None else {0: found}


def _sft(rows: Sequence[Row], firsts: Sequence[Row]) -> list[dict[str, tuple[Cell, ...]]]:
    """For every line the SFT rows drawn beside it: each row once, beside the first line of its model, if there is one of its mode."""
    levels: list[dict] = [{} for _ in firsts]
    for row in rows:
        if row.cells[0].algo != "sft":
            continue
        own = [place for place, first in enumerate(firsts) if first.model == row.model]
        alike = [place for place in own if firsts[place].tuning == row.tuning and _agree(row, firsts[place])]
        if own:
            levels[(alike or own)[0]][row.name] = row.cells
    return levels


def _agree(one: Row, other: Row) -> bool:
    """Whether no circumstance that both have differs."""
    ours, theirs = _circumstances(one), _circumstances(other)
    return all(ours[key] == theirs[key] for key in ours.keys() & theirs.keys())
