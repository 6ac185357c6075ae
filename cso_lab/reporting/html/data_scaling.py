"""Figure 4: the scores over the amount of preference data."""

from cso_lab.reporting.cells import METRICS
from cso_lab.reporting.data_scaling import curves
from cso_lab.reporting.html.charts import Chart, Section, line
from cso_lab.reporting.html.report_data import ReportData
from cso_lab.reporting.rows import HEADERS


def data_scaling(report: ReportData) -> Section | None:
    """Returns one chart per score, with one line per algorithm and mode of a model; None if nothing was trained on two amounts."""
    volume_curves = curves(report.rows)
    if not volume_curves:
        return None
    charts = []
    for metric in METRICS:
        data = []
        for colour, curve in enumerate(volume_curves):
            values = list(curve.values(metric))
            error = {"type": "data", "array": [deviation or 0 for _, deviation in values]}
            means = [mean for mean, _ in values]
            data.append(line(list(curve.points), means, colour, curve.name, mode="lines+markers", error_y=error))
            ends = [min(curve.points), max(curve.points)]
            for name, level in curve.levels(metric):
                data.append(line(ends, [level, level], colour, name, line={"dash": "dash"}))
        layout = {
            "height": 340,
            "xaxis": {"title": {"text": "dialogues of preference data (0: untrained)"}},
            "yaxis": {"title": {"text": HEADERS[metric]}},
            "showlegend": True,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        }
        caption = f"{HEADERS[metric]}. Over several seeds: the mean, with the sample standard deviation as a bar; SFT dashed."
        charts.append(Chart(f"chart-amount-{metric}", caption, {metric: {"data": data, "layout": layout}}))
    return Section("amounts", "Figure 4: amount of preference data", "section_charts", {"charts": charts})
