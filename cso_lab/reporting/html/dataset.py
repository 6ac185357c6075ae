"""The preference data looked at: Table 5, Figures 3 and 9, Table 7 and the near-duplicates, from statistics.json and inspection.json."""

from collections.abc import Iterator, Mapping

from cso_lab.reporting.cells import INSPECTION_FILE
from cso_lab.reporting.dataset_tables import duplicates, table5, toxicity
from cso_lab.reporting.html.charts import Chart, Section, Table, line
from cso_lab.reporting.html.report_data import Material
from cso_lab.reporting.strategy_figures import FIGURES, SHARE, STAGE

_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")


def dataset(material: Material) -> Section | None:
    """What is known of every dataset the runs rest on or looked at."""
    folders = material.shared_folders("dataset")
    tables = [table for folder in folders for table in table5(material.json(folder / "statistics.json"), folder.name)]
    seen = []
    for run in material.runs:
        found = material.json(run.folder / INSPECTION_FILE)
        if found and found not in seen:
            seen.append(found)
            tables += [*_figures(found, len(seen)), *toxicity(found), *duplicates(found)]
    return Section("dataset", "The preference data", "section_tables", {"tables": tables}) if tables else None


def _figures(found: Mapping, number: int) -> Iterator[Table]:
    charts = []
    for part, (_, title) in FIGURES.items():
        progress = (found.get("progress") or {}).get(part)
        if progress:
            charts.append(_progress(f"chart-progress-{part}-{number}", title, progress))
    if charts:
        caption = "Share of each strategy among the supporter's turns of each sixth of the conversation."
        yield Table("Figures 3 and 9: strategies over the conversation", [], [], caption, found.get("notices") or [], charts)


def _progress(id: str, title: str, progress: Mapping) -> Chart:
    data = [
        line(
            progress["stages"],
            percent,
            place,
            name,
            mode="lines+markers",
            marker={"symbol": _MARKERS[place % len(_MARKERS)], "size": 8},
        )
        for place, (name, percent) in enumerate(progress["percent"].items())
    ]
    layout = {
        "height": 440,
        "xaxis": {"title": {"text": STAGE}, "tickvals": progress["stages"]},
        "yaxis": {"title": {"text": SHARE}, "rangemode": "tozero"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }
    return Chart(id, f"{title}.", {title: {"data": data, "layout": layout}})
