"""The report stage: a run's metrics.json and inspection -> its table, figures and page."""

from cso_lab.conversation.records import CONVERSATION_METRICS
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.stage import Stage


class Report(Stage):
    """Leaves report.{md,csv,tex,html} in the run folder. Needs metrics.json, or what `inspect` or `converse` has left. A sweep has one of
    its own."""

    name, of_reference = "report", True

    def run(self, cell: CellContext) -> None:
        if cell.in_sweep:
            return
        from cso_lab.reporting.cells import INSPECTION_FILE, METRICS_FILE
        from cso_lab.reporting.report import write_and_print
        from cso_lab.reporting.sweeps import table_of

        if not any((cell.folder / name).exists() for name in (METRICS_FILE, INSPECTION_FILE, CONVERSATION_METRICS)):
            raise cell.missing("evaluate", f"no {METRICS_FILE} in {cell.folder}")
        write_and_print([cell.folder], cell.folder, cell.folder.name, table_of(cell.cfg))
