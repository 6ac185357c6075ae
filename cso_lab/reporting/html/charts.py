"""Sections of report.html, and charts as plotly.js reads them; charts.js gives them the colours of the theme."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape


@dataclass(frozen=True)
class Section:
    """A section: `template` is page/TEMPLATE.html.j2, rendered with `values`; `id` is its anchor on the page."""

    id: str
    title: str
    template: str
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Chart:
    """A chart, or several of which the reader chooses one.

    `figures` maps the name of each to {data, layout} of plotly.js; a trace's `meta` may hold `colour`, an index into the theme's
    palette, and `band`, true of an area around a line. `caption` describes the chart, `shown` is the index of the figure shown at
    first, `choose` labels the choice.
    """

    id: str
    caption: str
    figures: Mapping[str, Mapping]
    shown: int = 0
    choose: str = "show"


@dataclass(frozen=True)
class ChartGroup:
    """Charts under a title of their own, among the tables of a section; `notices` are warnings that must be read with them."""

    title: str
    caption: str
    charts: Sequence[Chart]
    notices: Sequence[str] = ()


def chart_label(text: object) -> str:
    """Returns a text for a chart, escaped: plotly.js interprets some HTML tags."""
    return escape(str(text), quote=False)


def wrapped_label(text: str, width: int = 18) -> str:
    """Returns a long label for a chart, escaped and broken into lines of about `width` characters."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(map(chart_label, lines))


def bars(names: Sequence[str], values: Sequence[float | None], colour: int, name: str = "", **more: object) -> dict:
    """Returns a trace of horizontal bars, one per name; `more` are further attributes of the trace."""
    trace = {"type": "bar", "orientation": "h", "y": list(names), "x": list(values), "name": chart_label(name)}
    return trace | {"meta": {"colour": colour}} | more


def line(x: Sequence[float], y: Sequence[float | None], colour: int, name: str, **more: object) -> dict:
    """Returns a trace of a line; beyond the palette's eight colours, dashes tell lines apart."""
    trace = {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "name": chart_label(name),
        "meta": {"colour": colour},
    }
    return trace | more


def band(x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: int, **more: object) -> dict:
    """Returns a trace of the area between two lines, which is in no legend; `more` are further attributes of the trace."""
    trace = {"type": "scatter", "mode": "lines", "x": [*x, *reversed(x)], "y": [*high, *reversed(low)], "fill": "toself"}
    return trace | {"hoverinfo": "skip", "showlegend": False, "meta": {"colour": colour, "band": True}} | more


def heatmap(counts: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], hover: str) -> dict:
    """Returns a figure of counts: the stronger a colour, the larger the share of its row. `hover`: a hovertemplate of plotly.js."""
    totals = [max(1, sum(row)) for row in counts]
    trace = {
        "type": "heatmap",
        "z": [[round(100 * count / total, 1) for count in row] for row, total in zip(counts, totals, strict=True)],
        "text": [[str(count) if count else "" for count in row] for row in counts],
        "x": [_short(name) for name in columns],
        "y": [wrapped_label(name, 20) for name in rows],
        "texttemplate": "%{text}",
        "hovertemplate": hover,
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


def _short(name: str, most: int = 20) -> str:
    """Returns a column label of at most `most` characters; the rows have the full names in the same order."""
    return chart_label(name if len(name) <= most else f"{name[: most - 1]}…")
