"""The strategies that models choose: preference per strategy (the basis of B), and gold against predicted strategies."""

from collections.abc import Sequence

from cso_lab.reporting.html.charts import Chart, Section, bars, heatmap, wrapped_label
from cso_lab.reporting.html.report_data import ReportData, Run, first_of_each_kind

_UNPARSED = "unparsed"


def preferences(report: ReportData) -> list[Section]:
    """Returns one section per set of strategies: a table of all runs, and bars around 1, which is no preference."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in report.measured:
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
    # Only a few runs are legible at once; the others can be switched on in the legend.
    first = first_of_each_kind([run.cell for run in runs])
    for index, run in enumerate(runs):
        values = [run.cell.strategies[name] for name in names]
        if any(value.get("preference") is None for value in values):
            continue
        p = [value["preference"] for value in values]
        texts = ["never" if value.get("predicted") == 0 else f"{value['preference']:.2f}" for value in values]
        more = {"base": 1, "text": texts, "textposition": "outside", "cliponaxis": False, "hovertemplate": "%{y}: %{text}"}
        trace = bars([wrapped_label(name, 24) for name in names], [value - 1 for value in p], run.colour, run.name, **more)
        data.append(trace if index in first else trace | {"visible": "legendonly"})
    if not data:
        return None
    highest = max(1 + x for trace in data for x in trace["x"])
    layout = {
        "height": 90 + 62 * len(names) + 10 * len(data),
        "barmode": "group",
        "bargap": 0.25,
        # Leaves room for the texts beside the shortest and the longest bar.
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


def confusion_counts(predictions: Sequence[dict], names: Sequence[str]):
    """Returns counts of (gold, predicted) strategies, an array of shape (K, K + 1); the last column counts unparsed replies.

    Turns whose gold strategy is not among the K `names` are left out.
    """
    from cso_lab.evaluation.metrics import confusion

    labelled = [p for p in predictions if p.get("gold_strategy") in names]
    predicted = [p.get("strategy") if p.get("strategy") in names else None for p in labelled]
    return confusion([p["gold_strategy"] for p in labelled], predicted, names)


def confusions(report: ReportData) -> Section | None:
    """Returns two confusion matrices side by side, each of a run that the reader chooses; None without predictions."""
    figures = {}
    for run in report.measured:
        names = list(run.cell.strategies)
        predictions = report.jsonl(run.folder / "predictions.jsonl")
        if names and predictions:
            counts = confusion_counts(predictions, names).tolist()
            hover = "gold %{y}<br>predicted %{x}<br>%{text} turns, %{z}% of the row<extra></extra>"
            figures[run.name] = heatmap(counts, names, [*names, _UNPARSED], hover)
    if not figures:
        return None
    # The runs are in the paper's order, untrained first, so the first and the last are the most interesting to compare.
    sides = [("left", 0)] + ([("right", len(figures) - 1)] if len(figures) > 1 else [])
    caption = (
        "Rows: gold; columns: chosen; the stronger the colour, the larger the share of its row; on the diagonal it was right."
    )
    charts = [Chart(f"chart-confusion-{side}", caption, figures, index, "cell") for side, index in sides]
    return Section("confusion", "Gold and predicted strategies", "section_charts", {"charts": charts})
