"""Figures 3 and 9: the strategies over the six stages of the conversation, in ESC-Pro and in the seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cso_lab.reporting.figures import STYLES, save

# Which part of the data each figure of the paper is of, and what it is called.
FIGURES = {"escpro": ("figure3", "Figure 3: ESC-Pro"), "seed": ("figure9", "Figure 9: the seed")}
STAGE, SHARE = "conversation stage", "% of the stage's turns"


def write_progress_figures(progress: Mapping, notices: Sequence[str], out: Path) -> dict[str, list[Path]]:
    """Draw figure3 and figure9 as PNG and SVG into `out`, as far as their part is in `progress`; {part: its files}.

    `notices` must be read with ESC-Pro's; the seed has seen no search.
    """
    return {
        part: _draw(progress[part], title, notices if part == "escpro" else (), out, name)
        for part, (name, title) in FIGURES.items()
        if progress.get(part)
    }


def _draw(progress: Mapping, title: str, notices: Sequence[str], out: Path, name: str) -> list[Path]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    panel = figure.subplots()
    styles = STYLES * len(progress["percent"])
    for (strategy, percent), (colour, marker) in zip(progress["percent"].items(), styles, strict=False):
        values = [float("nan") if value is None else value for value in percent]
        panel.plot(progress["stages"], values, color=colour, marker=marker, label=strategy)
    panel.set_title("\n".join([title, *notices]), fontsize=10)
    panel.set_xlabel(STAGE)
    panel.set_ylabel(SHARE)
    panel.set_xticks(
        progress["stages"],
        [f"{at:.1f}\n{turns} turns" for at, turns in zip(progress["stages"], progress["turns"], strict=True)],
    )
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return save(figure, out, name)
