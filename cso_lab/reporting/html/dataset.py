"""The preference data looked at: Table 5, Figures 3 and 9, Table 7 and the near-duplicates, from statistics.json and inspection.json."""

from collections.abc import Iterator, Mapping

from cso_lab.reporting.html.material import Material
from cso_lab.reporting.html.section import Chart, Section, Table, beside, line
from cso_lab.reporting.published import published_study

INSPECTION = "inspection/inspection.json"
_FIGURES = {"escpro": "Figure 3: ESC-Pro", "seed": "Figure 9: the seed"}
_PAPERS_SCORER = "Perspective API"
_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")


def dataset(material: Material) -> Section | None:
    """What is known of every dataset the runs rest on or looked at."""
    tables = [table for folder in material.shared_folders("dataset") for table in _table5(material, folder)]
    seen = []
    for run in material.runs:
        found = material.json(run.folder / INSPECTION)
        if found and found not in seen:
            seen.append(found)
            tables += [*_figures(found, len(seen)), *_toxicity(found), *_duplicates(found)]
    return Section("dataset", "The preference data", "section_tables", {"tables": tables}) if tables else None


def _table5(material: Material, folder) -> Iterator[Table]:
    table = material.json(folder / "statistics.json").get("table5")
    if not isinstance(table, Mapping):
        return
    parts, published = {"seed": table.get("seed"), **table.get("per_path", {})}, published_study("5")
    lines = [
        [_words(key), *(beside((parts.get(column) or {}).get(key), value) for column, value in row.items())]
        for key, row in published.items()
    ]
    caption = "Counted as the paper does: a turn of several valid paths counts for each. Dialogues in utterances, utterances in words."
    yield Table(f"Table 5: statistics of dataset {folder.name}", ["", *next(iter(published.values()))], lines, caption)


def _figures(found: Mapping, number: int) -> Iterator[Table]:
    charts = []
    for part, title in _FIGURES.items():
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
        "xaxis": {"title": {"text": "conversation stage"}, "tickvals": progress["stages"]},
        "yaxis": {"title": {"text": "% of the stage's turns"}, "rangemode": "tozero"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }
    return Chart(id, f"{title}.", {title: {"data": data, "layout": layout}})


def _toxicity(found: Mapping) -> Iterator[Table]:
    """Table 7; the paper's values stand beside ours only where the scorer is the paper's."""
    toxicity = found.get("toxicity")
    if not toxicity:
        return
    published = published_study("7")
    attributes = list(next(iter(published.values())))
    same = toxicity["scorer"] == _PAPERS_SCORER
    lines = [
        [_words(part), str(scores["n"])]
        + [
            beside(scores["means"].get(name), published.get(part, {}).get(name) if same else None, digits=4)
            for name in attributes
        ]
        for part, scores in toxicity["parts"].items()
    ]
    caption = f"Scored by {toxicity['scorer']}, {toxicity['version']}."
    if not same:
        caption += f" The paper's values are the {_PAPERS_SCORER}'s, on a scale of its own, and so do not stand here."
    notices = [toxicity["notice"]] if toxicity.get("notice") else []
    yield Table("Table 7: toxicity", ["", "n", *attributes], lines, caption, notices)


def _duplicates(found: Mapping) -> Iterator[Table]:
    lines = [
        [f"{kind}, {where.replace('_', ' against ' if not where.startswith('within') else ' ')}", str(part["pairs"])]
        + [f"{part[side]['concerned']} of {part[side]['of']}" for side in ("left", "right")]
        for kind in ("dialogues", "utterances")
        for where, part in ((found.get("duplicates") or {}).get(kind) or {}).items()
    ]
    if lines:
        yield Table(
            "Near-duplicates",
            ["", "pairs", "concerned, left", "concerned, right"],
            lines,
            "By the Jaccard similarity of runs of words.",
        )


def _words(key: str) -> str:
    return key.replace("_", " ")
