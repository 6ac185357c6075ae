"""Q, B, Q_W and R-L of every row, beside the paper's values and the differences."""

from cso_lab.reporting.cells import METRICS
from cso_lab.reporting.comparison import stand_in_columns, verdict
from cso_lab.reporting.html.charts import Beside, Chart, Section, Table, broken, label
from cso_lab.reporting.html.report_data import Material
from cso_lab.reporting.markdown import legend
from cso_lab.reporting.rows import HEADERS, Row, mean_and_deviation
from cso_lab.reporting.significance import compared


def results(material: Material) -> Section | None:
    """The table of all rows, and a chart of Q and of B with their intervals."""
    rows = material.rows
    if not rows:
        return None
    title = f"Table {material.table}: ours beside the paper's" if material.table else "Results"
    return Section(
        "results",
        title,
        "section_results",
        {
            "headers": [HEADERS[metric] for metric in METRICS],
            "lines": [_line(row) for row in rows],
            # What the paper has for other models, in columns of its own: the fields of each row.
            "foreign": stand_in_columns(rows, material.table),
            "legend": legend(rows, material.table),
            "with_paper": any(row.paper for row in rows),
            "seeds": max(len(row.cells) for row in rows) > 1,
            "charts": [_chart(material, metric) for metric in ("Q", "B")],
        },
    )


def differences(material: Material) -> Section | None:
    """Every row less the untrained model, and less SFT: by a paired bootstrap over the turns that both replied to."""
    lines = []
    for one in compared(material.rows):
        values = [one.differences[metric] for metric in METRICS]
        fields = [
            Beside(
                f"{value.value:+.2f}{'' if value.real else ' (0 within)'}".replace("-", "\u2212"),
                f"{value.low:+.2f} to {value.high:+.2f}".replace("-", "\u2212"),
            )
            for value in values
        ]
        lines.append([one.row.name, one.against.name, *fields, str(one.n)])
    if not lines:
        return None
    caption = (
        "Ours less ours, with the 95% interval of the difference, from a paired bootstrap over test turns. Where that interval holds 0, "
        "the difference may be chance."
    )
    table = Table("", ["Row", "less", *(HEADERS[metric] for metric in METRICS), "n"], lines, caption)
    return Section("differences", "Differences", "section_tables", {"tables": [table]})


def _line(row: Row) -> dict:
    return {
        "model": row.model,
        "tuning": row.tuning,
        "method": row.full_method,
        "values": [_value(row, metric) for metric in METRICS],
        "n": "/".join(dict.fromkeys(str(cell.n) for cell in row.cells)),
        "unparsed": "/".join(dict.fromkeys("–" if cell.unparsed is None else str(cell.unparsed) for cell in row.cells)),
        "seeds": ", ".join(str(cell.seed) for cell in row.cells if cell.seed is not None),
    }


def _value(row: Row, metric: str) -> dict:
    mean, deviation = mean_and_deviation([cell.scores[metric] for cell in row.cells])
    bounds = row.cells[0].intervals.get(metric) if len(row.cells) == 1 else None
    return {
        "mean": f"{mean:.2f}",
        "deviation": None if deviation is None else f"{deviation:.2f}",
        "interval": bounds and f"{bounds[0]:.2f} to {bounds[1]:.2f}",
        "paper": row.paper and f"{row.paper[metric]:.2f}",
        "difference": row.paper and f"{mean - row.paper[metric]:+.2f} {verdict(row, metric)}".replace("-", "\u2212").strip(),
    }


def _chart(material: Material, metric: str) -> Chart:
    """One dot a row with its interval (one seed) or sample deviation (several), and the paper's value as a hollow diamond."""
    rows = material.rows
    names = [
        broken(row.name if not material.model else ", ".join(filter(None, (row.tuning, row.full_method))), 30) for row in rows
    ]
    # A row's place, so that two rows of one name stay two.
    places = list(range(len(rows)))
    means, above, below = [], [], []
    for row in rows:
        mean, deviation = mean_and_deviation([cell.scores[metric] for cell in row.cells])
        low, high = row.cells[0].intervals.get(metric) or (mean, mean)
        if deviation is not None:
            low, high = mean - deviation, mean + deviation
        means.append(mean)
        above.append(max(0.0, high - mean))
        below.append(max(0.0, mean - low))
    error = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    ours = {"type": "scatter", "mode": "markers", "name": "ours", "x": means, "y": places, "error_x": error}
    data = [
        ours
        | {"marker": {"size": 9}, "meta": {"colour": 0}, "text": names, "hovertemplate": "%{text}: %{x:.2f}<extra></extra>"}
    ]
    if any(row.paper for row in rows):
        paper = {"type": "scatter", "mode": "markers", "name": "the paper's", "y": places}
        paper["x"] = [row.paper[metric] if row.paper else None for row in rows]
        data.append(paper | {"marker": {"size": 11, "symbol": "diamond-open"}, "meta": {"colour": 1}})
    layout = {
        "height": 110 + 26 * len(rows),
        "xaxis": {
            "title": {"text": label(f"{HEADERS[metric]}, {material.model}" if material.model else HEADERS[metric])},
            "rangemode": "tozero",
        },
        "yaxis": {"tickvals": places, "ticktext": names, "range": [len(rows) - 0.5, -0.5], "zeroline": False},
        "showlegend": len(data) > 1,
        "legend": {"orientation": "h", "y": 1, "yanchor": "bottom"},
    }
    about = "the bar is the 95% interval, or over several seeds the sample standard deviation"
    return Chart(f"chart-{metric}", f"{HEADERS[metric]} of every row; {about}.", {metric: {"data": data, "layout": layout}})
