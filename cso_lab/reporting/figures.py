"""Figures by matplotlib: colours with markers, reproducible files, and Figures 3 and 9 (strategies over the conversation)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

FORMATS = ("png", "svg")
# Okabe and Ito's colours, which colour-blind readers can tell apart; grey replaces their yellow, which is invisible on white. Markers tell
# the lines apart in black and white.
STYLES = [
    *(("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P")),
    *(("#000000", "X"), ("#7F7F7F", "*")),
]


# {part of the data: (file, title)} of the paper's figures of strategies over the conversation.
FIGURES = {"escpro": ("figure3", "Figure 3: ESC-Pro"), "seed": ("figure9", "Figure 9: the seed")}
STAGE, SHARE = "conversation stage", "% of the stage's turns"


def save(figure, out: Path, name: str) -> list[Path]:
    """Writes NAME.png and NAME.svg into `out` and returns their paths; equal figures give equal files, and the SVG keeps its text."""
    from matplotlib import rc_context

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.{suffix}" for suffix in FORMATS]
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        for path in paths:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def write_strategy_figures(by_stage: Mapping, notices: Sequence[str], out: Path) -> dict[str, list[Path]]:
    """Draws Figures 3 and 9: the share of each strategy in each stage of the conversation, as PNG and SVG.

    `by_stage` is {"escpro" or "seed": {stages, turns, percent: {strategy: [percent per stage]}}}. `notices` go below the title
    of ESC-Pro's figure, since the seed comes from no search. Returns {part: its files}.
    """
    return {
        part: _draw(by_stage[part], title, notices if part == "escpro" else (), out, name)
        for part, (name, title) in FIGURES.items()
        if by_stage.get(part)
    }


def _draw(by_stage: Mapping, title: str, notices: Sequence[str], out: Path, name: str) -> list[Path]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    panel = figure.subplots()
    styles = STYLES * len(by_stage["percent"])
    for (strategy, percent), (colour, marker) in zip(by_stage["percent"].items(), styles, strict=False):
        values = [float("nan") if value is None else value for value in percent]
        panel.plot(by_stage["stages"], values, color=colour, marker=marker, label=strategy)
    panel.set_title("\n".join([title, *notices]), fontsize=10)
    panel.set_xlabel(STAGE)
    panel.set_ylabel(SHARE)
    panel.set_xticks(
        by_stage["stages"],
        [f"{at:.1f}\n{turns} turns" for at, turns in zip(by_stage["stages"], by_stage["turns"], strict=True)],
    )
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return save(figure, out, name)
