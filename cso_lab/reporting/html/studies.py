"""Replies judged, by models and by people: Tables 1, 3 and 6 beside the paper's, from the judging.json files of the runs."""

from collections.abc import Mapping

from cso_lab.reporting.html.material import Material
from cso_lab.reporting.html.section import Section, Table, beside
from cso_lab.reporting.published import published_study

_JUDGING = "judging/*/judging.json"
_OUTCOMES = ("win", "lose", "tie")
_BY = {"models": "judged by language models", "people": "judged by people"}


def studies(material: Material) -> Section | None:
    """One table a panel of judges."""
    tables, seen = [], []
    for run in material.runs:
        for file in sorted(run.folder.glob(_JUDGING)):
            found = material.json(file)
            if found and found not in seen:
                seen.append(found)
                tables += [_table(found, name, panel) for name, panel in (found.get("panels") or {}).items()]
    return Section("studies", "Judged replies", "section_tables", {"tables": tables}) if tables else None


def _table(found: Mapping, name: str, panel: Mapping) -> Table:
    header, lines, caption = _KINDS[panel["kind"]](panel, published_study(str(found["table"])))
    by = "by simulated judges" if panel.get("simulated") else _BY.get(name, name)
    notices = [notice for notice in found.get("notices") or []]
    return Table(
        f"{found['title']}, {by}", header, lines, f"Judges: {', '.join(map(str, panel['judges']))}. {caption}", notices
    )


def _comparison(panel: Mapping, published: Mapping) -> tuple[list, list, str]:
    first, second = panel["sides"]
    lines = [
        [criterion]
        + [beside(row[o], published.get(criterion, {}).get(o), _interval(row["intervals"].get(o), 1)) for o in _OUTCOMES]
        + [beside(row["cohen"], published.get(criterion, {}).get("cohen")), beside(row["fleiss"])]
        for criterion, row in panel["rows"].items()
    ]
    words, order = panel["length"]["words"] or (float("nan"), float("nan")), panel["order"]
    caption = (
        f"Of {panel['n']} pairs the percent in which {first} is better (win) or worse (lose) than {second}, with 95% intervals. "
        f"Mean words: {words[0]:.1f} and {words[1]:.1f}."
    )
    if order.get("all") is not None:
        caption += f" The reply shown first wins {order['all']:.1f}% of decisive answers; 50% is no order bias."
    return ["", *(f"{outcome} %" for outcome in _OUTCOMES), "Cohen", "Fleiss"], lines, caption


def _rating(panel: Mapping, published: Mapping) -> tuple[list, list, str]:
    groups = panel["groups"]
    lines = [
        [criterion]
        + [beside(row["means"][g], published.get(criterion, {}).get(g), _interval(row["intervals"].get(g), 2)) for g in groups]
        + [beside(row["cohen"], published.get(criterion, {}).get("cohen")), beside(row["fleiss"])]
        for criterion, row in panel["rows"].items()
    ]
    low, high = panel["scale"]
    return ["", *groups, "Cohen", "Fleiss"], lines, f"Means on a scale of {low} to {high}; the paper does not state its scale."


_KINDS = {"comparison": _comparison, "rating": _rating}


def _interval(bounds: list | None, digits: int) -> str:
    return f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}" if bounds else ""
