"""Replies judged, by models and by people: Tables 1, 3 and 6 beside the paper's, from the judging.json files of the runs."""

from cso_lab.judging.tables import judged_tables
from cso_lab.reporting.html.charts import Section
from cso_lab.reporting.html.report_data import Material

_JUDGING = "judging/*/judging.json"


def studies(material: Material) -> Section | None:
    """One table a panel of judges."""
    tables, seen = [], []
    for run in material.runs:
        for file in sorted(run.folder.glob(_JUDGING)):
            found = material.json(file)
            if found and found not in seen:
                seen.append(found)
                tables += judged_tables(found)
    return Section("studies", "Judged replies", "section_tables", {"tables": tables}) if tables else None
