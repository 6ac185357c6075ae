"""Pictures of one cell: which strategies it prefers, and which it takes for which."""

from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from cso_lab.core.files import read_jsonl

_BLUE, _ORANGE = "#0072B2", "#D55E00"
_UNPARSED = "unparsed"


def drawn(figure):
    """A matplotlib figure as a picture (Pillow's)."""
    from PIL import Image

    canvas = BytesIO()
    figure.savefig(canvas, format="png", dpi=120)
    return Image.open(canvas)


def preferences(strategies: Mapping[str, Mapping]):
    """Bars of how often each strategy was predicted, and beside them the preference B is the deviation of (1 = no bias)."""
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


def confusion(folder: Path, strategies: Sequence[str]):
    """How many turns of each gold strategy were given which one, from predictions.jsonl; a column of its own for unparsed replies."""
    from matplotlib.figure import Figure

    chosen = [*strategies, _UNPARSED]
    rows = read_jsonl(folder / "predictions.jsonl")
    counted = Counter((row["gold_strategy"], row["strategy"] or _UNPARSED) for row in rows)
    counts = [[counted[gold, name] for name in chosen] for gold in strategies]
    figure = Figure(figsize=(8, 6), layout="constrained")
    panel = figure.subplots()
    panel.imshow(counts, cmap="Blues", aspect="auto")
    panel.set_xticks(range(len(chosen)), chosen, rotation=45, ha="right")
    panel.set_yticks(range(len(strategies)), strategies)
    panel.set_xlabel("predicted")
    panel.set_ylabel("gold")
    most = max((count for line in counts for count in line), default=0)
    for y, line in enumerate(counts):
        for x, count in enumerate(line):
            panel.text(x, y, str(count), ha="center", va="center", color="white" if count > most / 2 else "black")
    return figure
