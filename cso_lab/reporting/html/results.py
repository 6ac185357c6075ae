"""Q, B, Q_W and R-L of every row beside the paper's, and the differences between rows."""

from dataclasses import replace

from cso_lab.core.tables import Table, Value, minus_signs
from cso_lab.evaluation.paired import Difference
from cso_lab.reporting.cells import METRICS
from cso_lab.reporting.comparison import verdict
from cso_lab.reporting.html.charts import Chart, Section, chart_label, wrapped_label
from cso_lab.reporting.html.report_data import ReportData
from cso_lab.reporting.markdown import legend
from cso_lab.reporting.results_table import ResultsTable
from cso_lab.reporting.rows import HEADERS, Row
from cso_lab.reporting.significance import compare_rows


def results_section(report: ReportData) -> Section | None:
    """Returns the table of all rows, and charts of Q and B with their intervals; None without rows."""
    rows = report.rows
    if not rows:
        return None
    results = ResultsTable(rows, report.table)
    title = f"Table {report.table}: ours beside the paper's" if report.table else "Results"
    return Section(
        "results",
        title,
        "section_results",
        {
            "headers": [HEADERS[metric] for metric in METRICS],
            "lines": [_line(row) for row in rows],
            # The paper's scores of other models, in columns of their own.
            "foreign": results.proxy_columns,
            "legend": legend(rows, report.table),
            "with_paper": results.with_paper,
            "cut": results.with_cut,
            "seeds": max(len(row.cells) for row in rows) > 1,
            "charts": [_chart(report, metric) for metric in ("Q", "B")],
        },
    )


def text_metrics_section(report: ReportData) -> Section | None:
    """Returns the metrics of `evaluation.text`; None where no row has any."""
    table = ResultsTable(report.rows, report.table).text_metrics()
    return table and Section("text-metrics", table.title, "section_tables", {"tables": [replace(table, title="")]})


def differences_section(report: ReportData) -> Section | None:
    """Returns every row minus the untrained model and minus SFT, by a paired bootstrap; None if no rows can be compared."""
    rows = []
    for one in compare_rows(report.rows):
        fields = [difference_field(one.differences[metric]) for metric in METRICS]
        rows.append([one.row.name, one.baseline.name, *fields, str(one.n)])
    if not rows:
        return None
    caption = (
        "Ours less ours, with the 95% interval of the difference, from a paired bootstrap over test turns. Where that interval holds 0, "
        "the difference may be chance."
    )
    table = Table("", ["Row", "less", *(HEADERS[metric] for metric in METRICS), "n"], rows, caption)
    return Section("differences", "Differences", "section_tables", {"tables": [table]})


def difference_field(difference: Difference) -> Value:
    """Returns a difference with its interval, and whether that holds 0."""
    return Value(
        minus_signs(f"{difference.value:+.2f}{'' if difference.significant else ' (0 within)'}"),
        minus_signs(f"{difference.low:+.2f} to {difference.high:+.2f}"),
    )


def _line(row: Row) -> dict:
    return {
        "model": row.model,
        "tuning": row.tuning,
        "method": row.full_method,
        "values": [_value(row, metric) for metric in METRICS],
        "n": "/".join(dict.fromkeys(str(cell.n) for cell in row.cells)),
        "unparsed": "/".join(dict.fromkeys("–" if cell.unparsed is None else str(cell.unparsed) for cell in row.cells)),
        "cut": "/".join(dict.fromkeys(str(cell.cut) for cell in row.cells)),
        "seeds": ", ".join(str(cell.seed) for cell in row.cells if cell.seed is not None),
    }


def _value(row: Row, metric: str) -> dict:
    mean, deviation = row.score(metric)
    bounds = row.cells[0].intervals.get(metric) if len(row.cells) == 1 else None
    return {
        "mean": f"{mean:.2f}",
        "deviation": None if deviation is None else f"{deviation:.2f}",
        "interval": bounds and f"{bounds[0]:.2f} to {bounds[1]:.2f}",
        "paper": row.paper and f"{row.paper[metric]:.2f}",
        "difference": row.paper and minus_signs(f"{mean - row.paper[metric]:+.2f} {verdict(row, metric)}").strip(),
    }


def _chart(report: ReportData, metric: str) -> Chart:
    """Returns a dot per row with its interval (one seed) or sample deviation (several), and the paper's score as a hollow diamond."""
    rows = report.rows
    names = [
        wrapped_label(row.name if not report.model else ", ".join(filter(None, (row.tuning, row.full_method))), 30)
        for row in rows
    ]
    # Positions and not names, so that two rows of one name stay two.
    positions = list(range(len(rows)))
    means, above, below = [], [], []
    for row in rows:
        mean, deviation = row.score(metric)
        low, high = row.cells[0].intervals.get(metric) or (mean, mean)
        if deviation is not None:
            low, high = mean - deviation, mean + deviation
        means.append(mean)
        above.append(max(0.0, high - mean))
        below.append(max(0.0, mean - low))
    error = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    ours = {"type": "scatter", "mode": "markers", "name": "ours", "x": means, "y": positions, "error_x": error}
    data = [
        ours
        | {"marker": {"size": 9}, "meta": {"colour": 0}, "text": names, "hovertemplate": "%{text}: %{x:.2f}<extra></extra>"}
    ]
    if any(row.paper for row in rows):
        paper = {"type": "scatter", "mode": "markers", "name": "the paper's", "y": positions}
        paper["x"] = [row.paper[metric] if row.paper else None for row in rows]
        data.append(paper | {"marker": {"size": 11, "symbol": "diamond-open"}, "meta": {"colour": 1}})
    layout = {
        "height": 110 + 26 * len(rows),
        "xaxis": {
            "title": {"text": chart_label(f"{HEADERS[metric]}, {report.model}" if report.model else HEADERS[metric])},
            "rangemode": "tozero",
        },
        "yaxis": {"tickvals": positions, "ticktext": names, "range": [len(rows) - 0.5, -0.5], "zeroline": False},
        "showlegend": len(data) > 1,
        "legend": {"orientation": "h", "y": 1, "yanchor": "bottom"},
    }
    about = "the bar is the 95% interval, or over several seeds the sample standard deviation"
    return Chart(f"chart-{metric}", f"{HEADERS[metric]} of every row; {about}.", {metric: {"data": data, "layout": layout}})
