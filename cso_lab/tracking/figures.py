"""Figures of one cell: its preference per strategy, its confusion matrix, and its transitions between strategies."""

from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from cso_lab.core.files import read_jsonl

_BLUE, _ORANGE = "#0072B2", "#D55E00"
_UNPARSED = "unparsed"


def as_image(figure):
    """Returns a matplotlib figure as a Pillow image."""
    from PIL import Image

    canvas = BytesIO()
    figure.savefig(canvas, format="png", dpi=120)
    return Image.open(canvas)


def preference_figure(strategies: Mapping[str, Mapping]):
    """Returns bars of how often each strategy was predicted, and of its preference p, whose deviation is B (1: no bias)."""
    from matplotlib.figure import Figure

    names = list(strategies)
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for panel, key, title, colour in ((left, "predicted", "predicted", _BLUE), (right, "preference", "preference p", _ORANGE)):
        panel.barh(names, [strategies[name].get(key) or 0 for name in names], color=colour)
        panel.set_title(title)
    right.axvline(1, color="grey", linestyle="--", linewidth=1)
    left.invert_yaxis()
    return figure


def confusion_figure(folder: Path, strategies: Sequence[str]):
    """Returns the matrix of gold against predicted strategies, in turns, from predictions.jsonl; unparsed replies come last."""
    predicted = [*strategies, _UNPARSED]
    rows = read_jsonl(folder / "predictions.jsonl")
    counter = Counter((row["gold_strategy"], row["strategy"] or _UNPARSED) for row in rows)
    counts = [[counter[gold, name] for name in predicted] for gold in strategies]
    return _matrix_figure(counts, strategies, predicted, "gold", "predicted")


def transition_figure(strategies: Mapping):
    """Returns the matrix of which strategy follows which in conversations, from the `strategies` of conversation_metrics.json."""
    return _matrix_figure(
        strategies["transitions"], strategies["names"], strategies["names"], "a supporter turn", "the next one"
    )


def _matrix_figure(counts: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], down: str, across: str):
    """Returns a matrix of counts; `down` and `across` name its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    panel = figure.subplots()
    panel.imshow(counts, cmap="Blues", aspect="auto")
    panel.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xlabel(across)
    panel.set_ylabel(down)
    most = max((count for line in counts for count in line), default=0)
    for y, line in enumerate(counts):
        for x, count in enumerate(line):
            panel.text(x, y, str(count), ha="center", va="center", color="white" if count > most / 2 else "black")
    return figure
