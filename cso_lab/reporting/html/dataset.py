"""The preference data (Tables 5 and 7, Figures 3 and 9, near-duplicates), judged replies (Tables 1, 3 and 6) and conversations."""

from collections.abc import Iterator, Mapping

from cso_lab.core.tables import Table
from cso_lab.judging.tables import judging_tables
from cso_lab.reporting.cells import INSPECTION_FILE
from cso_lab.reporting.dataset_tables import inspection_tables, table5
from cso_lab.reporting.figures import FIGURES, SHARE, STAGE
from cso_lab.reporting.html.charts import Chart, ChartGroup, Section, line
from cso_lab.reporting.html.report_data import ReportData

_JUDGING_FILES = "judging/*/judging.json"
_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")


def dataset(report: ReportData) -> Section | None:
    """Returns Tables 5 and 7, Figures 3 and 9 and the other tables of every dataset the runs used; None without any."""
    folders = report.shared_folders("dataset")
    tables: list[Table | ChartGroup] = [
        table for folder in folders for table in table5(report.json(folder / "statistics.json"), folder.name)
    ]
    for number, inspection in enumerate(_distinct(report, INSPECTION_FILE), start=1):
        tables += [*_figures(inspection, number), *inspection_tables(inspection)]
    return Section("dataset", "The preference data", "section_tables", {"tables": tables}) if tables else None


def judged_replies(report: ReportData) -> Section | None:
    """Returns the tables of the runs' judging.json files (Tables 1, 3 and 6, conversations), one per panel of judges; None without any."""
    tables = [table for results in _distinct(report, _JUDGING_FILES) for table in judging_tables(results)]
    return Section("studies", "Judged replies and conversations", "section_tables", {"tables": tables}) if tables else None


def _distinct(report: ReportData, pattern: str) -> list[dict]:
    """Returns the objects in the files of run folders that match a pattern, equal ones once."""
    distinct: list[dict] = []
    for run in report.runs:
        for file in sorted(run.folder.glob(pattern)):
            content = report.json(file)
            if content and content not in distinct:
                distinct.append(content)
    return distinct


def _figures(inspection: Mapping, number: int) -> Iterator[ChartGroup]:
    charts = [
        _by_stage(f"chart-progress-{part}-{number}", title, shares)
        for part, (_, title) in FIGURES.items()
        if (shares := (inspection.get("progress") or {}).get(part))
    ]
    if charts:
        caption = "Share of each strategy among the supporter's turns of each sixth of the conversation."
        title = "Figures 3 and 9: strategies over the conversation"
        yield ChartGroup(title, caption, charts, inspection.get("notices") or [])


def _by_stage(id: str, title: str, shares: Mapping) -> Chart:
    data = [
        line(
            shares["stages"],
            percent,
            index,
            name,
            mode="lines+markers",
            marker={"symbol": _MARKERS[index % len(_MARKERS)], "size": 8},
        )
        for index, (name, percent) in enumerate(shares["percent"].items())
    ]
    layout = {
        "height": 440,
        "xaxis": {"title": {"text": STAGE}, "tickvals": shares["stages"]},
        "yaxis": {"title": {"text": SHARE}, "rangemode": "tozero"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }
    return Chart(id, f"{title}.", {title: {"data": data, "layout": layout}})
