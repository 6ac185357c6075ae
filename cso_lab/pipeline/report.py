"""The report stage: a run's metrics.json and inspection -> its table, figures and page."""

from cso_lab.conversation.records import CONVERSATION_METRICS
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.stage import Stage


class Report(Stage):
    """Leaves report.{md,csv,tex,html} in the run folder. Needs metrics.json, or the results of `inspect` or `converse`.

    A cell of a sweep has no report of its own: the sweep writes one about all cells.
    """

    name, of_reference = "report", True

    def run(self, cell: CellContext) -> None:
        """Writes and prints the report of a single cell. Raises UserError if there is nothing to report on."""
        if cell.in_sweep:
            return
        from cso_lab.reporting.cells import INSPECTION_FILE, METRICS_FILE
        from cso_lab.reporting.report import write_and_print
        from cso_lab.reporting.sweeps import table_of

        if not any((cell.folder / name).exists() for name in (METRICS_FILE, INSPECTION_FILE, CONVERSATION_METRICS)):
            raise cell.missing("evaluate", f"no {METRICS_FILE} in {cell.folder}")
        write_and_print([cell.folder], cell.folder, cell.folder.name, table_of(cell.cfg))
