"""Training curves from train_log.jsonl, and the time and cost of every stage from run.json and search.json."""

from pathlib import Path

from cso_lab.reporting.html.charts import Chart, Section, bars, line, wrapped_label
from cso_lab.reporting.html.report_data import ReportData, Run, numbers
from cso_lab.reporting.training_log import LOG

# More points per curve than a screen has columns would only make the page larger.
_POINTS = 500
# Quantities in this order; any other number in the log follows.
_FIRST = (
    *(
        "loss",
        "logps/chosen",
        "logps/rejected",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "kl",
    ),
    *("grad_norm", "learning_rate"),
)
_NOT_PLOTTED = ("step", "epoch")


def training_curves(report: ReportData) -> Section | None:
    """Returns a chart of which the reader chooses the quantity; None without logs."""
    logs = [(run, log) for run in report.runs if (log := report.jsonl(run.folder / LOG))]
    logged = dict.fromkeys(key for _, log in logs for entry in log for key in entry if key not in _NOT_PLOTTED)
    figures = {}
    for key in [*(key for key in _FIRST if key in logged), *sorted(set(logged) - set(_FIRST))]:
        data = [trace for run, log in logs if (trace := _curve(run, log, key))]
        if data:
            figures[key] = {"data": data, "layout": _layout(key, len(data))}
    if not figures:
        return None
    caption = "One point an optimizer step. Losses of different algorithms are different functions: compare their course, not their height."
    return Section(
        "training", "Training", "section_charts", {"charts": [Chart("chart-training", caption, figures, 0, "quantity")]}
    )


def _curve(run: Run, log: list[dict], key: str) -> dict | None:
    points = [(entry.get("step", n), entry.get(key)) for n, entry in enumerate(log, start=1)]
    y = list(numbers(value for _, value in points))
    if all(value is None for value in y):
        return None
    every = -(-len(points) // _POINTS)
    mode = {"mode": "lines+markers"} if len(points) == 1 else {}
    return line([step for step, _ in points][::every], y[::every], run.colour, run.name, **mode)


def _layout(key: str, curves: int) -> dict:
    return {
        "height": 400 + 12 * curves,
        "xaxis": {"title": {"text": "optimizer step"}},
        "yaxis": {"title": {"text": key}},
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }


def cost_and_time(report: ReportData) -> Section | None:
    """Returns the seconds of every stage of every run, and calls, tokens and cost of shared stages; None if nothing is known."""
    stages: dict[str, None] = {}
    timed: list[tuple[Run, dict]] = []
    for run in report.runs:
        seconds = report.json(run.folder / "run.json").get("seconds")
        seconds = {k: v for k, v in seconds.items() if isinstance(v, int | float)} if isinstance(seconds, dict) else {}
        if seconds:
            timed.append((run, seconds))
            stages |= dict.fromkeys(seconds)
    shared = [
        {"stage": stage, "folder": folder.name, "runs": len(runs), "facts": _facts(report, folder)}
        for stage in ("search", "dataset")
        for folder, runs in report.shared_folders(stage).items()
    ]
    shared = [entry for entry in shared if entry["facts"]]
    if not timed and not shared:
        return None
    stages = dict.fromkeys(stages)
    lines = [{"name": run.name, "values": [seconds.get(stage) for stage in stages]} for run, seconds in timed]
    charts = [_seconds(timed, list(stages))] if timed else []
    return Section(
        "cost", "Cost and time", "section_cost", {"stages": list(stages), "lines": lines, "shared": shared, "charts": charts}
    )


def _seconds(timed: list[tuple[Run, dict]], stages: list[str]) -> Chart:
    positions = list(range(len(timed)))
    data = [
        bars(positions, [seconds.get(stage) for _, seconds in timed], colour, stage, hovertemplate="%{x} s")
        for colour, stage in enumerate(stages)
    ]
    layout = {
        "height": 130 + 26 * len(timed),
        "barmode": "stack",
        "xaxis": {"title": {"text": "seconds"}},
        "yaxis": {
            "tickvals": positions,
            "ticktext": [wrapped_label(run.name, 30) for run, _ in timed],
            "autorange": "reversed",
        },
        "legend": {"orientation": "h", "y": 1, "yanchor": "bottom", "traceorder": "normal"},
    }
    return Chart("chart-cost", "Seconds of each cell's own stages.", {"seconds": {"data": data, "layout": layout}})


def _facts(report: ReportData, folder: Path) -> list[tuple[str, str]]:
    """Returns (name, value) of a shared stage: seconds, and of a search calls, tokens and cost, those of its parts included."""
    facts = []
    summary, record = report.json(folder / "search.json"), report.json(folder / "done.json")
    seconds = summary.get("seconds", record.get("seconds"))
    if seconds is not None:
        facts.append(("seconds", f"{seconds:,}"))
    usage = [summary.get("usage") or {}, *(summary.get("parts") or {}).values()]
    calls = sum(sum((part.get("calls") or {}).values()) for part in usage)
    tokens = sum(part.get("prompt_tokens", 0) + part.get("completion_tokens", 0) for part in usage)
    cost, unpriced = (sum(part.get(name, 0) for part in usage) for name in ("cost", "unpriced"))
    facts += [(name, f"{count:,}") for name, count in (("calls", calls), ("tokens", tokens)) if count]
    if cost or unpriced:
        facts.append(("cost", f"${cost:,.2f}" + (f" and {unpriced:,} calls without a known price" if unpriced else "")))
    if summary.get("players"):
        facts.append(("players", str(summary["players"])))
    return facts
