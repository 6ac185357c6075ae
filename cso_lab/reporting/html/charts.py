"""A section of the page, and the charts in it as plotly.js reads them; report.js gives them the colours of the theme."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from cso_lab.reporting.rows import NONE


@dataclass(frozen=True)
class Section:
    """`template` is page/TEMPLATE.html.j2, rendered with `values`; `id` is the section's address on the page."""

    id: str
    title: str
    template: str
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Chart:
    """A chart, or several of which the reader chooses one.

    `figures` maps the name of each to {data, layout} of plotly.js; a trace's `meta` may hold `colour`, a place in the theme's palette.
    `caption` says in words what is seen. `shown` is the figure shown at first.
    """

    id: str
    caption: str
    figures: Mapping[str, Mapping]
    shown: int = 0
    choose: str = "show"


def label(text: object) -> str:
    """A text for a chart: plotly reads a few tags, and shows none that is escaped."""
    return escape(str(text), quote=False)


def broken(text: str, width: int = 18) -> str:
    """A long label of a chart in lines of about `width` characters."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(map(label, lines))


def bars(names: Sequence[str], values: Sequence[float | None], colour: int, name: str = "", **more: object) -> dict:
    """Horizontal bars, one a name."""
    trace = {"type": "bar", "orientation": "h", "y": list(names), "x": list(values), "name": label(name)}
    return trace | {"meta": {"colour": colour}} | more


def line(x: Sequence[float], y: Sequence[float | None], colour: int, name: str, **more: object) -> dict:
    """A line; beyond the palette's eight colours its dashes tell it apart."""
    trace = {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "name": label(name), "meta": {"colour": colour}}
    return trace | more


@dataclass(frozen=True)
class Beside:
    """A field of a table: our value, what belongs to it in brackets, and the paper's value with the difference where it has one."""

    ours: str
    note: str = ""
    paper: str = ""
    difference: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a section. A field is a text or a `Beside`; the first of a line is its head. `notices` are set off from the `caption`."""

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str | Beside]]
    caption: str = ""
    notices: Sequence[str] = ()
    charts: Sequence[Chart] = ()


def beside(ours: float | None, paper: float | None = None, note: str = "", digits: int = 2) -> Beside:
    """The two values and ours less the paper's, to `digits` digits; whole numbers as such."""

    def written(value: float | None) -> str:
        return NONE if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"

    if paper is None:
        return Beside(written(ours), note)
    difference = (
        ""
        if ours is None
        else f"{ours - paper:+,d}"
        if isinstance(ours, int) and isinstance(paper, int)
        else f"{ours - paper:+,.{digits}f}"
    )
    return Beside(written(ours), note, written(paper), difference.replace("-", "\u2212"))
