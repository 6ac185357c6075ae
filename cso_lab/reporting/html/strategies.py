"""Which strategies a model chooses: the preference for each, and what it chose where another was gold."""

from collections.abc import Sequence

from cso_lab.reporting.html.charts import Chart, Section, bars, broken, label
from cso_lab.reporting.html.report_data import Material, Run, first_of_each_kind

_UNPARSED = "unparsed"


def preferences(material: Material) -> list[Section]:
    """One section a set of strategies: a table of every cell, and bars around 1, which is no preference."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in material.measured:
        if run.cell.strategies:
            groups.setdefault(tuple(run.cell.strategies), []).append(run)
    return [_section(number, names, runs) for number, (names, runs) in enumerate(groups.items())]


def _section(number: int, names: tuple[str, ...], runs: list[Run]) -> Section:
    lines = [
        {"name": run.name, "B": f"{run.cell.scores['B']:.2f}", "values": [_preference(run, name) for name in names]}
        for run in runs
    ]
    title = "Preference per strategy" + (f" ({number + 1})" if number else "")
    return Section(
        f"preferences{number or ''}",
        title,
        "section_preferences",
        {"names": names, "lines": lines, "chart": _bars(number, names, runs)},
    )


def _preference(run: Run, name: str) -> dict:
    values = run.cell.strategies[name]
    predicted, support, p = values.get("predicted"), values.get("support"), values.get("preference")
    tone = "" if p is None else "over" if p > 1.25 else "under" if p < 0.8 else ""
    return {
        "p": "–" if p is None else f"{p:.2f}",
        "share": 0 if p is None else round(100 * min(1.0, p / len(run.cell.strategies)), 1),
        "tone": tone,
        "predicted": predicted,
        "support": support,
        "never": predicted == 0,
    }


def _bars(number: int, names: Sequence[str], runs: list[Run]) -> Chart | None:
    data = []
    # A few rows of bars are legible at once; the others stand in the legend to be switched on.
    first = first_of_each_kind([run.cell for run in runs])
    for place, run in enumerate(runs):
        values = [run.cell.strategies[name] for name in names]
        if any(value.get("preference") is None for value in values):
            continue
        p = [value["preference"] for value in values]
        said = ["never" if value.get("predicted") == 0 else f"{value['preference']:.2f}" for value in values]
        more = {"base": 1, "text": said, "textposition": "outside", "cliponaxis": False, "hovertemplate": "%{y}: %{text}"}
        trace = bars([broken(name, 24) for name in names], [value - 1 for value in p], run.colour, run.name, **more)
        data.append(trace if place in first else trace | {"visible": "legendonly"})
    if not data:
        return None
    highest = max(1 + x for trace in data for x in trace["x"])
    layout = {
        "height": 90 + 62 * len(names) + 10 * len(data),
        "barmode": "group",
        "bargap": 0.25,
        # Room for the words left of the shortest and right of the longest bar.
        "xaxis": {
            "title": {"text": "preference (1: none)"},
            "range": [-1, highest + 0.8],
            "tickvals": list(range(int(highest) + 2)),
        },
        "yaxis": {"autorange": "reversed"},
        "legend": {"orientation": "h", "y": 1, "yanchor": "bottom"},
        "shapes": [{"type": "line", "x0": 1, "x1": 1, "y0": 0, "y1": 1, "yref": "paper"}],
    }
    caption = "Right of 1 a strategy is over-used, left of 1 under-used. Choose cells in the legend."
    return Chart(f"chart-preferences{number or ''}", caption, {"all": {"data": data, "layout": layout}})


def confusion_of(predictions: Sequence[dict], names: Sequence[str]):
    """Counts of (gold, predicted), shape (K, K + 1), and how many predictions name a gold strategy outside `names`."""
    from cso_lab.evaluation.metrics import confusion

    known = [p for p in predictions if p.get("gold_strategy") in names]
    predicted = [p.get("strategy") if p.get("strategy") in names else None for p in known]
    return confusion([p["gold_strategy"] for p in known], predicted, names)


def confusions(material: Material) -> Section | None:
    """Two confusion tables side by side, each of a cell that the reader chooses."""
    figures = {}
    for run in material.measured:
        names = list(run.cell.strategies)
        predictions = material.jsonl(run.folder / "predictions.jsonl")
        if names and predictions:
            figures[run.name] = _heatmap(confusion_of(predictions, names), names)
    if not figures:
        return None
    # The cells stand in the paper's order: untrained first, so the two ends are what one wants to compare.
    sides = [("left", 0)] + ([("right", len(figures) - 1)] if len(figures) > 1 else [])
    caption = (
        "Rows: gold; columns: chosen; the stronger the colour, the larger the share of its row; on the diagonal it was right."
    )
    charts = [Chart(f"chart-confusion-{side}", caption, figures, shown, "cell") for side, shown in sides]
    return Section("confusion", "Gold and predicted strategies", "section_charts", {"charts": charts})


def _short(name: str, most: int = 20) -> str:
    """A label that takes one line beside its neighbours; the rows spell it out in the same order."""
    return label(name if len(name) <= most else f"{name[: most - 1]}…")


def _heatmap(counts, names: Sequence[str]) -> dict:
    totals = counts.sum(-1, keepdims=True)
    shares = 100 * counts / totals.clip(min=1)
    trace = {
        "type": "heatmap",
        "z": shares.round(1).tolist(),
        "text": [[str(count) if count else "" for count in row] for row in counts.tolist()],
        "x": [_short(name) for name in [*names, _UNPARSED]],
        "y": [broken(name, 20) for name in names],
        "texttemplate": "%{text}",
        "hovertemplate": "gold %{y}<br>predicted %{x}<br>%{text} turns, %{z}% of the row<extra></extra>",
        "zmin": 0,
        "zmax": 100,
        "xgap": 1,
        "ygap": 1,
        "showscale": False,
        "meta": {"scale": True},
    }
    layout = {
        "height": 560,
        "xaxis": {"side": "bottom", "tickangle": -90, "showgrid": False},
        "yaxis": {"autorange": "reversed", "showgrid": False},
    }
    return {"data": [trace], "layout": layout}
