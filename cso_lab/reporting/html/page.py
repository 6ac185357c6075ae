"""report.html of run folders: what was run and which warnings apply, then one section per topic that the files allow."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cso_lab.core.published import backbones
from cso_lab.reporting.cells import INSPECTION_FILE, Cell, MissingCell
from cso_lab.reporting.conversations import without_conversations
from cso_lab.reporting.html.charts import Section
from cso_lab.reporting.html.conversations import conversations, side_by_side
from cso_lab.reporting.html.data_scaling import data_scaling
from cso_lab.reporting.html.dataset import dataset, judged_replies
from cso_lab.reporting.html.render import plotly_js, render, write_page
from cso_lab.reporting.html.replies import replies_section
from cso_lab.reporting.html.report_data import ReportData
from cso_lab.reporting.html.results import differences_section, results_section, text_metrics_section
from cso_lab.reporting.html.strategies import confusions, preferences
from cso_lab.reporting.html.training import cost_and_time, training_curves
from cso_lab.reporting.html.trees import dialogues, trees
from cso_lab.reporting.markdown import notices, remarks, what_was_run
from cso_lab.reporting.rows import model_name

# In the order of the page. A section without files to make it of is None and is left out.
SECTIONS: tuple[Callable[[ReportData], Section | Sequence[Section] | None], ...] = (
    results_section,
    text_metrics_section,
    differences_section,
    data_scaling,
    conversations,
    preferences,
    confusions,
    training_curves,
    dataset,
    judged_replies,
    replies_section,
    side_by_side,
    dialogues,
    trees,
    cost_and_time,
)


def write_report_page(folders: Iterable[Cell | MissingCell | Path], out: Path, title: str, table: str | None = None) -> Path:
    """Writes report.html of run folders, or of cells already read, into `out`. Returns its path.

    `table` ("9") is the paper's table whose scores are looked up first. Damaged and unfinished folders are shown as far as their
    files can be read, with the reason.
    """
    report = ReportData(folders, Path(out), table)
    sections = []
    for build in SECTIONS:
        built = build(report)
        sections += built if isinstance(built, list) else [built] if built else []
    page = render(
        "report",
        scripts=("tree.js", "turns.js", "conversations.js"),
        styles=("report.css", "conversations.css"),
        libraries=[(plotly_js(), "charts.js")],
        title=title,
        model=report.model,
        notices=_notices(report),
        ran=what_was_run(report.cells) if report.cells or not report.conversations else [],
        sections=sections,
        absent=[
            (missing.folder.name, missing.reason) for missing in without_conversations(report.missing, report.conversations)
        ],
        problems=report.problems,
        remarks=remarks(report.cells, report.rows, report.table),
        runs=_provenance(report),
    )
    report.out.mkdir(parents=True, exist_ok=True)
    return write_page(page, report.out)


def _notices(report: ReportData) -> list[str]:
    """Returns the warnings that go with every number: simulated players, models that the paper lacks, constrained replies."""
    warnings = [notice.rstrip(".") for notice in notices(report.cells)]
    for run in report.runs:
        warnings += [str(notice).rstrip(".") for notice in report.json(run.folder / INSPECTION_FILE).get("notices") or ()]
    not_measured = [model_name(cell) for cell in report.cells if cell.backbone not in backbones() or cell.context.get("path")]
    if not_measured:
        models = ", ".join(dict.fromkeys(not_measured))
        warnings.append(f"not measured in the paper, so not to be compared with its numbers: {models}")
    if any(cell.context.get("constrain") not in (None, "none") for cell in report.cells):
        warnings.append("replies were constrained to open with a strategy; the paper's cells use no constraint")
    return list(dict.fromkeys(warnings))


def _provenance(report: ReportData) -> list[dict]:
    """Returns each run's folder, commit, package versions and overrides."""
    entries = []
    for run in report.runs:
        record = report.json(run.folder / "run.json")
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
