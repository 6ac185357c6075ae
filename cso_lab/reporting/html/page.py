"""report.html: the sections that the files of some run folders allow, and the note on top of what was run."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cso_lab.core.published import backbones
from cso_lab.reporting.cells import INSPECTION_FILE, Absent, Cell
from cso_lab.reporting.html import data_scaling as amounts
from cso_lab.reporting.html import dataset, results, studies, trees
from cso_lab.reporting.html import replies as turns
from cso_lab.reporting.html import strategies as choices
from cso_lab.reporting.html import training as curves
from cso_lab.reporting.html.charts import Section
from cso_lab.reporting.html.render import plotly_js, render, write_page
from cso_lab.reporting.html.report_data import Material
from cso_lab.reporting.markdown import notices, remarks, what_was_run
from cso_lab.reporting.rows import model_name

# In the order of the page. Each takes what files there are; without them it gives nothing and is left out.
SECTIONS: tuple[Callable[[Material], Section | Sequence[Section] | None], ...] = (
    results.results,
    results.differences,
    amounts.amounts,
    choices.preferences,
    choices.confusions,
    curves.curves,
    dataset.dataset,
    studies.studies,
    turns.turns,
    trees.dialogues,
    trees.trees,
    curves.costs,
)


def write_report_page(folders: Iterable[Cell | Absent | Path], out: Path, title: str, table: str | None = None) -> Path:
    """Write `out`/report.html for run folders, or for cells already read; returns its path.

    `table` ("9") says which of the paper's tables is looked up first. Folders that are damaged or unfinished are shown as far as they
    go, with the reason.
    """
    material = Material(folders, Path(out), table)
    sections = []
    for build in SECTIONS:
        made = build(material)
        sections += made if isinstance(made, list) else [made] if made else []
    page = render(
        "report",
        scripts=("tree.js", "turns.js"),
        styles=("report.css",),
        libraries=[(plotly_js(), "charts.js")],
        title=title,
        model=material.model,
        notices=_notices(material),
        ran=what_was_run(material.cells),
        sections=sections,
        absent=[(absent.folder.name, absent.reason) for absent in material.absent],
        problems=material.problems,
        remarks=remarks(material.cells, material.rows, material.table),
        runs=_provenance(material),
    )
    material.out.mkdir(parents=True, exist_ok=True)
    return write_page(page, material.out)


def _notices(material: Material) -> list[str]:
    """What must stand beside every number: that players were simulated, that the models are not the paper's, that replies were led."""
    found = [notice.rstrip(".") for notice in notices(material.cells)]
    for run in material.runs:
        found += [str(notice).rstrip(".") for notice in material.json(run.folder / INSPECTION_FILE).get("notices") or ()]
    foreign = [model_name(cell) for cell in material.cells if cell.backbone not in backbones() or cell.context.get("path")]
    if foreign:
        models = ", ".join(dict.fromkeys(foreign))
        found.append(f"not measured in the paper, so not to be compared with its numbers: {models}")
    if any(cell.context.get("constrain") not in (None, "none") for cell in material.cells):
        found.append("replies were constrained to open with a strategy; the paper's cells use no constraint")
    return list(dict.fromkeys(found))


def _provenance(material: Material) -> list[dict]:
    """Where each run lies, and with which code and packages it was made."""
    entries = []
    for run in material.runs:
        record = material.json(run.folder / "run.json")
        versions = record.get("versions") if isinstance(record.get("versions"), dict) else {}
        entries.append(
            {
                "name": run.name,
                "folder": run.folder.name,
                "commit": str(record.get("commit") or "–")[:10],
                "versions": ", ".join(f"{package} {version}" for package, version in versions.items() if version),
                "overrides": " ".join(map(str, record.get("overrides") or [])),
            }
        )
    return entries
