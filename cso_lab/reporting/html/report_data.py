"""What the page is made of: the files of run folders and of the shared folders they point to, read kindly.

A run may be unfinished, damaged in part, or copied from another machine without its searches. Whatever cannot be read is noted in
`Material.problems` and shown as such; nothing here fails.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cso_lab.account import STAGES_FILE, copied_folder
from cso_lab.errors import UserError
from cso_lab.files import read_json, read_jsonl
from cso_lab.reporting.cells import FAILED_FILE, INSPECTION_FILE, METRICS_FILE, Absent, Cell, gather
from cso_lab.reporting.rows import Row, table_rows


@dataclass(frozen=True)
class Run:
    """One run folder: its cell, or None where it has no numbers; `name` tells it from the page's others, `colour` is a place in the
    palette, the same in every chart."""

    folder: Path
    cell: Cell | None
    name: str
    colour: int


@dataclass
class Material:
    """Run folders read on demand. `table` names the paper's table that is looked up first ("9"), `out` is the page's folder."""

    folders: Iterable[Cell | Absent | Path]
    out: Path
    table: str | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self):
        self.cells, self.absent = gather(self.folders)
        self.rows: list[Row] = table_rows(self.cells, self.table)
        self._read: dict[Path, object] = {}

    @cached_property
    def model(self) -> str | None:
        """The one model of every row; None where there are several, which every name then tells."""
        models = {row.model for row in self.rows}
        return models.pop() if len(models) == 1 else None

    @cached_property
    def runs(self) -> list[Run]:
        """The cells in the order of the table, then the folders without numbers."""
        named = []
        for row in self.rows:
            name = ", ".join(part for part in ("" if self.model else row.model, row.tuning, row.full_method) if part)
            for cell in row.cells:
                seed = f", seed {cell.seed}" if len(row.cells) > 1 else ""
                named.append((cell.folder, cell, name + seed))
        named += [(absent.folder, None, absent.folder.name) for absent in self.absent]
        # What is looked at first gets the colours that differ most.
        first = first_of_each_kind([cell for _, cell, _ in named])
        order = [*first, *(place for place in range(len(named)) if place not in first)]
        return [Run(*values, order.index(place)) for place, values in enumerate(named)]

    @property
    def measured(self) -> list[Run]:
        """The runs with numbers."""
        return [run for run in self.runs if run.cell]

    def json(self, path: Path) -> dict:
        """The object in a JSON file; empty when there is none."""
        return self._cached(path, read_json, dict) or {}

    def jsonl(self, path: Path) -> list[dict]:
        """The objects of a JSON Lines file; empty when there is none."""
        return self._cached(path, read_jsonl, list) or []

    def config(self, run: Run) -> Mapping:
        """The run's resolved configuration, as plain values: nothing in it is called or resolved."""

        def read(path: Path) -> dict:
            try:
                return OmegaConf.to_container(OmegaConf.load(path))
            except (OmegaConfBaseException, YAMLError, OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path}: no configuration ({str(error).splitlines()[0]})") from None

        return self._cached(run.folder / "config.yaml", read, dict) or {}

    def shared(self, run: Run, stage: str) -> Path | None:
        """The folder of a shared stage the run rests on: as its stages.json says, or beside the run where both were copied."""
        named = self.json(run.folder / STAGES_FILE).get(stage)
        if not isinstance(named, str):
            return None
        found = copied_folder(run.folder, named)
        if found is None:
            self.problem(
                named, f"the {stage} of {run.folder.name} is not on this machine; its trees and statistics are left out"
            )
        return found

    def shared_folders(self, stage: str) -> dict[Path, list[Run]]:
        """The folders of a shared stage, each with the runs that rest on it."""
        found: dict[Path, list[Run]] = {}
        for run in self.runs:
            if folder := self.shared(run, stage):
                found.setdefault(folder.resolve(), []).append(run)
        return found

    def _cached(self, path: Path, read, kind: type):
        if path not in self._read:
            self._read[path] = None
            if path.exists():
                try:
                    value = read(path)
                    if not isinstance(value, kind):
                        raise UserError(f"{path}: holds a {type(value).__name__}")
                    self._read[path] = value
                except UserError as error:
                    self.problem(str(path), str(error))
        return self._read[path]

    def problem(self, place: str, reason: str) -> None:
        if place not in dict(self.problems):
            self.problems.append((place, reason))


def first_of_each_kind(cells: Sequence[Cell | None]) -> list[int]:
    """Places of the first untrained cell, the first trained by SFT and the first trained on preferences, as far as there are such."""
    first: dict[int, int] = {}
    for place, cell in enumerate(cells):
        if cell:
            first.setdefault(0 if cell.algo == "base" else 1 if cell.algo == "sft" else 2, place)
    return sorted(first.values())


def run_folders(folder: Path) -> list[Path]:
    """Every folder in `folder`, itself included, that is a run's: finished, failed or under way."""
    files = (STAGES_FILE, METRICS_FILE, FAILED_FILE)
    found = {path.parent for name in files for path in Path(folder).rglob(name)}
    return sorted(found | {path.parents[1] for path in Path(folder).rglob(INSPECTION_FILE)})


def numbers(values: Iterable[object]) -> Iterator[float | None]:
    """The values that are numbers; None for any other, so that damaged logs leave gaps."""
    for value in values:
        yield value if isinstance(value, int | float) and not isinstance(value, bool) else None
