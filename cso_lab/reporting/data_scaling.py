"""Figure 4: the scores over the amount of preference data, one line a model, its SFT dashed."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from cso_lab.reporting.cells import METRICS, Cell
from cso_lab.reporting.figures import STYLES, save
from cso_lab.reporting.rows import HEADERS, Row, mean_and_deviation

NAME = "figure4"
# How many expanded dialogues a cell was trained on, as its metrics.json says.
VOLUME = "preference_dialogues"


def write_volume_figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Draw figure4.png and figure4.svg into `out`; [] where no model was trained on two amounts of data.

    The untrained model stands at 0 dialogues. Over several seeds: the mean, with the sample standard deviation as a bar.
    """
    found = curves(rows)
    if not found:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(METRICS), 3.6), layout="constrained")
    panels = figure.subplots(1, len(METRICS))
    for (model, points), (colour, marker) in zip(found.items(), STYLES * len(found), strict=False):
        sft = [cell for row in rows if row.model == model and row.cells[0].algo == "sft" for cell in row.cells]
        for panel, metric in zip(panels, METRICS, strict=True):
            values = [mean_and_deviation([cell.scores[metric] for cell in cells]) for cells in points.values()]
            panel.errorbar(
                list(points),
                [mean for mean, _ in values],
                yerr=[deviation or 0 for _, deviation in values],
                color=colour,
                marker=marker,
                label=model,
                capsize=2,
            )
            if sft:
                level, _ = mean_and_deviation([cell.scores[metric] for cell in sft])
                panel.axhline(level, color=colour, linestyle="--", linewidth=1, label=f"{model}, SFT")
    for panel, metric in zip(panels, METRICS, strict=True):
        panel.set_title(HEADERS[metric])
        panel.set_xlabel("dialogues of preference data")
        panel.grid(alpha=0.3)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(found), 3) * 2, frameon=False
    )
    return save(figure, out, NAME)


def curves(rows: Sequence[Row]) -> dict[str, dict[int, list[Cell]]]:
    """{model: {dialogues: the cells of all seeds}}, in the order of the rows and of the amounts; 0 is the untrained model. Models that
    were trained on fewer than two amounts are left out."""
    found: dict[str, dict[int, list[Cell]]] = defaultdict(dict)
    for row in rows:
        cell = row.cells[0]
        untrained = cell.algo == "base" and cell.decoding == "plain"
        volume = 0 if untrained else cell.context.get(VOLUME)
        if volume is not None and cell.algo != "sft":
            found[row.model].setdefault(int(volume), []).extend(row.cells)
    return {model: dict(sorted(points.items())) for model, points in found.items() if len(points) > 2}
