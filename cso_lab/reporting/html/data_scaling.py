"""Figure 4: the scores over the amount of preference data."""

from cso_lab.reporting.cells import METRICS
from cso_lab.reporting.data_scaling import curves
from cso_lab.reporting.html.charts import Chart, Section, line
from cso_lab.reporting.html.report_data import ReportData
from cso_lab.reporting.rows import HEADERS, mean_and_deviation


def data_scaling(report: ReportData) -> Section | None:
    """Returns one chart per score; None where no model was trained on two amounts of data."""
    found = curves(report.rows)
    if not found:
        return None
    charts = []
    for metric in METRICS:
        data = []
        for colour, (model, points) in enumerate(found.items()):
            values = [mean_and_deviation([cell.scores[metric] for cell in cells]) for cells in points.values()]
            error = {"type": "data", "array": [deviation or 0 for _, deviation in values]}
            data.append(line(list(points), [mean for mean, _ in values], colour, model, mode="lines+markers", error_y=error))
            sft = [cell.scores[metric] for row in report.rows if row.model == model for cell in row.cells if cell.algo == "sft"]
            if sft:
                level, _ = mean_and_deviation(sft)
                ends = [min(points), max(points)]
                data.append(line(ends, [level, level], colour, f"{model}, SFT", line={"dash": "dash"}))
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
