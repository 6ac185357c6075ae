"""Reads run folders: cells from their metrics.json, and the reason for folders without numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cso_lab.conversation.records import CONVERSATION_METRICS
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json
from cso_lab.evaluation.paired import Turns

METRICS_FILE = "metrics.json"
FAILED_FILE = "failed.json"
# Left by the stage `inspect`; a run may have done nothing else.
INSPECTION_FILE = "inspection/inspection.json"
METRICS = ("Q", "B", "Q_W", "R-L")


@dataclass(frozen=True)
class Cell:
    """One measured cell of a table: a backbone, trained by an algorithm in a mode, or untrained.

    scores: {Q, B, Q_W, R-L}, in percent but for B. intervals: {metric: [low, high]}, at 95%. n: number of test turns, of which
    `unparsed` have replies that name no known strategy, and `cut` replies that ended at the limit of tokens.
    strategies: {name: {f1, predicted, ...}}.
    mode, seed: None if they play no part, as for the untrained model.
    variant: a hash that tells cells apart which differ in other values; varied: the values set on the command line.
    context: the data, roles, search and server behind the numbers; `context["path"]` is there when another model than the
    backbone's own was loaded. family: the backbone of the paper whose hyperparameters are used.
    text: {name: value} of the further metrics that evaluation.text asked for.
    turns: what was predicted at each test turn, None if metrics.json does not tell.
    """

    folder: Path
    backbone: str
    label: str
    algo: str
    algo_label: str
    scores: Mapping[str, float]
    n: int
    unparsed: int | None = None
    cut: int = 0
    mode: str | None = None
    mode_label: str | None = None
    decoding: str = "plain"
    decoding_label: str | None = None
    start_from: str = "base"
    start_label: str | None = None
    preferences: str | None = None
    variant: str | None = None
    varied: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    intervals: Mapping[str, list[float]] = field(default_factory=dict)
    strategies: Mapping[str, Mapping] = field(default_factory=dict)
    context: Mapping[str, object] = field(default_factory=dict)
    family: str | None = None
    text: Mapping[str, float] = field(default_factory=dict)
    turns: Turns | None = field(default=None, repr=False, compare=False)

    def context_value(self, key: str) -> object:
        """Returns a value of the context, an object as text; None if it plays no part."""
        value = self.context.get(key)
        if key == "test_turns" and value is None:
            return self.n
        if key == "preferences" and value is None:
            return self.preferences
        if isinstance(value, Mapping):
            if key in ("training_rows", "start_training_rows"):
                value = {name: count for name, count in value.items() if count or name == "used"}
            return ", ".join(f"{name}={child}" for name, child in value.items())
        return value


@dataclass(frozen=True)
class MissingCell:
    """A run folder without numbers, and why; `failed` is False where an API key was missing or nothing was to be evaluated."""

    folder: Path
    reason: str
    failed: bool = True


def read_cells(folders: Iterable[Path]) -> list[Cell]:
    """Returns the cells of run folders, read from their metrics.json alone; a folder given twice counts once.

    Raises UserError with the path of a metrics.json that is missing, damaged, or lacks a score.
    """
    return [_read_cell(folder) for folder in _distinct(folders)]


def load_cells(items: Iterable[Cell | MissingCell | Path]) -> tuple[list[Cell], list[MissingCell]]:
    """Returns (cells, missing cells) of run folders; cells already read are taken as they are.

    A folder is missing, with the reason, where its run failed, is unfinished, or left a damaged metrics.json.
    """
    items = list(items)
    cells = [item for item in items if isinstance(item, Cell)]
    missing = [item for item in items if isinstance(item, MissingCell)]
    for folder in _distinct(item for item in items if not isinstance(item, Cell | MissingCell)):
        reason = _missing(folder)
        if reason is None:
            try:
                cells.append(_read_cell(folder))
            except UserError as error:
                reason = MissingCell(folder, str(error))
        if reason is not None:
            missing.append(reason)
    return cells, missing


def find_run_folders(folder: Path, files: Sequence[str] = (METRICS_FILE, FAILED_FILE, CONVERSATION_METRICS)) -> list[Path]:
    """Returns every folder in `folder`, itself included, that holds one of `files` or was inspected, in the order of their paths."""
    folders = {path.parent for name in files for path in Path(folder).rglob(name)}
    return sorted(folders | {path.parents[1] for path in Path(folder).rglob(INSPECTION_FILE)})


def _distinct(folders: Iterable[Path]) -> list[Path]:
    return list({Path(folder).resolve(): Path(folder) for folder in folders}.values())


def _missing(folder: Path) -> MissingCell | None:
    """Returns why a folder has no numbers of its last run, None if it has; numbers beside failed.json are of an earlier run."""
    if (folder / FAILED_FILE).exists():
        try:
            note = read_json(folder / FAILED_FILE)
        except UserError as error:
            return MissingCell(folder, f"failed, and {error}")
        note = note if isinstance(note, dict) else {}
        return MissingCell(folder, str(note.get("reason") or "failed"), failed=not note.get("needs_key"))
    if not (folder / METRICS_FILE).exists():
        if (folder / INSPECTION_FILE).exists():
            return MissingCell(folder, "its data was looked at, and nothing evaluated", failed=False)
        if (folder / CONVERSATION_METRICS).exists():
            return MissingCell(folder, "its conversations were held, and nothing evaluated", failed=False)
        return MissingCell(folder, f"missing: the cell left no {METRICS_FILE}")
    return None


def _read_cell(folder: Path) -> Cell:
    path = folder / METRICS_FILE
    metrics = read_json(path)
    if not isinstance(metrics, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(metrics).__name__}")
    cell, context = (_mapping(metrics, key, path) for key in ("cell", "context"))
    backbone, algo = str(cell.get("backbone") or folder.name), str(cell.get("algo") or "base")
    return Cell(
        folder=folder,
        backbone=backbone,
        label=str(cell.get("label") or backbone),
        algo=algo,
        algo_label=str(cell.get("algo_label") or algo),
        scores={metric: _number(metrics, metric, path) for metric in METRICS},
        n=_count(metrics, "n", path),
        unparsed=None if metrics.get("unparsed") is None else _count(metrics, "unparsed", path),
        cut=_count(metrics, "cut", path) if "cut" in metrics else 0,
        mode=cell.get("mode") or None,
        mode_label=cell.get("mode_label") or cell.get("mode") or None,
        decoding=cell.get("decoding") or "plain",
        decoding_label=cell.get("decoding_label") or cell.get("decoding") or None,
        start_from=cell.get("start_from") or context.get("start_from") or "base",
        start_label=cell.get("start_label"),
        preferences=cell.get("preferences") or context.get("preferences") or None,
        variant=None if cell.get("variant") is None else str(cell["variant"]),
        varied=_mapping(cell, "varied", path),
        seed=cell.get("seed"),
        intervals=_intervals(metrics, path),
        strategies=_strategies(metrics, path),
        context=context,
        family=cell.get("family"),
        text={name: _number(_mapping(metrics, "text", path), name, path) for name in _mapping(metrics, "text", path)},
        turns=_turns(metrics, path),
    )


def _mapping(node: Mapping, key: str, path: Path) -> dict:
    """Returns the object under `key`, {} if there is none. Raises UserError if it is something else."""
    value = node.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key!r} is {value!r}: expected an object")
    return value


def _number(node: Mapping, key: str, path: Path) -> float:
    value = node.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{path}: {key!r} is {value!r}: expected a finite number")
    return float(value)


def _count(node: Mapping, key: str, path: Path) -> int:
    value = node.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"{path}: {key!r} is {value!r}: expected a count")
    return value


def _intervals(metrics: Mapping, path: Path) -> dict[str, list[float]]:
    intervals = _mapping(metrics, "intervals", path)
    for metric, bounds in intervals.items():
        if not isinstance(bounds, list) or len(bounds) != 2 or not all(isinstance(bound, int | float) for bound in bounds):
            raise UserError(f"{path}: interval of {metric!r} is {bounds!r}: expected [low, high]")
    return intervals


def _strategies(metrics: Mapping, path: Path) -> dict[str, dict]:
    strategies = _mapping(metrics, "strategies", path)
    for name in strategies:
        _number(_mapping(strategies, name, path), "f1", path)
    return strategies


def _turns(metrics: Mapping, path: Path) -> Turns | None:
    columns = _mapping(metrics, "per_turn", path)
    try:
        return Turns.from_columns(columns, len(metrics["strategies"])) if columns else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: 'per_turn' cannot be read ({error!r})") from None
