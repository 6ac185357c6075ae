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
    palette. `caption` describes the chart, `shown` is the index of the figure shown at first, `choose` labels the choice.
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
