"""`python -m cso_lab.reporting.html FOLDER`: report.html of a run, of a folder of runs, or of a search, from their files alone."""

from collections.abc import Sequence
from pathlib import Path

from cso_lab.core.commands import Parser, run
from cso_lab.core.errors import UserError
from cso_lab.core.published import table_names
from cso_lab.reporting.html.page import write_report_page
from cso_lab.reporting.html.report_data import run_folders
from cso_lab.reporting.tree_labels import add_thresholds
from cso_lab.reporting.tree_page import write_tree_page


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page of the folder on the command line and prints its path. Raises UserError if nothing is in the folder."""
    parser = Parser(
        prog="python -m cso_lab.reporting.html", description="Write FOLDER/report.html, a page to look at in a browser."
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="a run's, a sweep's or a search's; also copied from elsewhere"
    )
    parser.add_argument("--table", choices=table_names(), help="the paper's table whose values stand beside ours first")
    add_thresholds(parser)
    options = parser.parse_args(arguments)
    folder = options.folder
    if (folder / "trees").is_dir():
        print(write_tree_page(folder, options.theta, options.min_end_visits))
        return
    folders = run_folders(folder)
    if not folders:
        raise UserError(f"{folder}: neither runs (stages.json or metrics.json) nor a search (trees/*.json) lie in it")
    print(write_report_page(folders, folder, folder.resolve().name, options.table))


if __name__ == "__main__":
    run(main)
