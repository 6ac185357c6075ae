"""The data behind report.html: the files of run folders and of the shared folders they point to.

A run may be unfinished, damaged in part, or copied from another machine without its searches. A file that cannot be read is
listed in `ReportData.problems` and raises nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, read_jsonl
from cso_lab.core.run_folders import STAGES_FILE, copied_folder
from cso_lab.reporting.cells import FAILED_FILE, METRICS_FILE, Cell, MissingCell, find_run_folders, load_cells
from cso_lab.reporting.conversations import Conversations, load_conversations
from cso_lab.reporting.rows import Row, table_rows


@dataclass(frozen=True)
class Run:
    """One run folder: its cell, None if it has no numbers, a name of its own on the page, and its colour in every chart.

    `colour` is an index into the palette.
    """

    folder: Path
    cell: Cell | None
    name: str
    colour: int


@dataclass
class ReportData:
    """Run folders, whose files are read on demand.

    `table` ("9") is the paper's table whose scores are looked up first, `out` the folder of the page. `problems` lists (file or
    folder, why it could not be read).
    """

    folders: Iterable[Cell | MissingCell | Path]
    out: Path
    table: str | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self):
        self.cells, self.missing = load_cells(self.folders)
        self.rows: list[Row] = table_rows(self.cells, self.table)
        self._read: dict[Path, object] = {}

    @cached_property
    def model(self) -> str | None:
        """The model of all rows; None if there are several, which are then part of every name."""
        models = {row.model for row in self.rows}
        return models.pop() if len(models) == 1 else None

    @cached_property
    def runs(self) -> list[Run]:
        """The runs: cells in the order of the table, then folders without numbers."""
        entries = []
        for row in self.rows:
            name = ", ".join(part for part in ("" if self.model else row.model, row.tuning, row.full_method) if part)
            for cell in row.cells:
                seed = f", seed {cell.seed}" if len(row.cells) > 1 else ""
                entries.append((cell.folder, cell, name + seed))
        entries += [(missing.folder, None, missing.folder.name) for missing in self.missing]
        # The runs shown first get the colours that differ most.
        first = first_of_each_kind([cell for _, cell, _ in entries])
        order = [*first, *(index for index in range(len(entries)) if index not in first)]
        return [Run(*values, order.index(index)) for index, values in enumerate(entries)]

    @property
    def measured(self) -> list[Run]:
        """The runs that have numbers."""
        return [run for run in self.runs if run.cell]

    @cached_property
    def conversations(self) -> list[Conversations]:
        """The conversations of the runs that held any, the references last."""
        held, problems = load_conversations(run.folder for run in self.runs)
        for file, reason in problems.items():
            self.add_problem(str(file), reason)
        return held

    def json(self, path: Path) -> dict:
        """Returns the object in a JSON file, {} if it is missing or damaged."""
        return self._cached(path, read_json, dict) or {}

    def jsonl(self, path: Path) -> list[dict]:
        """Returns the objects of a JSON Lines file, [] if it is missing or damaged."""
        return self._cached(path, read_jsonl, list) or []

    def config(self, run: Run) -> Mapping:
        """Returns the run's config.yaml as plain values, {} if it is missing; nothing in it is instantiated or resolved."""

        def read(path: Path) -> dict:
            try:
                return OmegaConf.to_container(OmegaConf.load(path))
            except (OmegaConfBaseException, YAMLError, OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path}: no configuration ({str(error).splitlines()[0]})") from None

        return self._cached(run.folder / "config.yaml", read, dict) or {}

    def shared(self, run: Run, stage: str) -> Path | None:
        """Returns the folder of a shared stage of the run, None if it is not on this machine.

        It is the folder that stages.json names or, where both were copied, the one beside the run.
        """
        recorded = self.json(run.folder / STAGES_FILE).get(stage)
        if not isinstance(recorded, str):
            return None
        folder = copied_folder(run.folder, recorded)
        if folder is None:
            self.add_problem(
                recorded, f"the {stage} of {run.folder.name} is not on this machine; its trees and statistics are left out"
            )
        return folder

    def shared_folders(self, stage: str) -> dict[Path, list[Run]]:
        """Returns {folder of a shared stage: the runs that use it}."""
        folders: dict[Path, list[Run]] = {}
        for run in self.runs:
            if folder := self.shared(run, stage):
                folders.setdefault(folder.resolve(), []).append(run)
        return folders

    def _cached(self, path: Path, reader, kind: type):
        if path not in self._read:
            self._read[path] = None
            if path.exists():
                try:
                    value = reader(path)
                    if not isinstance(value, kind):
                        raise UserError(f"{path}: holds a {type(value).__name__}")
                    self._read[path] = value
                except UserError as error:
                    self.add_problem(str(path), str(error))
        return self._read[path]

    def add_problem(self, place: str, reason: str) -> None:
        """Records why a file or folder could not be read; of several reasons the first is kept."""
        if place not in dict(self.problems):
            self.problems.append((place, reason))


def first_of_each_kind(cells: Sequence[Cell | None]) -> list[int]:
    """Returns the indices of the first untrained, the first SFT and the first preference-trained cell, of those there are."""
    first: dict[int, int] = {}
    for index, cell in enumerate(cells):
        if cell:
            first.setdefault(0 if cell.algo == "base" else 1 if cell.algo == "sft" else 2, index)
    return sorted(first.values())


def run_folders(folder: Path) -> list[Path]:
    """Returns every run folder in `folder`, itself included: finished, failed or under way."""
    return find_run_folders(folder, (STAGES_FILE, METRICS_FILE, FAILED_FILE))


def numbers(values: Iterable[object]) -> Iterator[float | None]:
    """Yields the values, None for those that are no numbers: damaged logs leave gaps in curves."""
    for value in values:
        yield value if isinstance(value, int | float) and not isinstance(value, bool) else None
