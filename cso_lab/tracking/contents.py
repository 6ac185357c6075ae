"""What is shown of each stage, read from the files it left: numbers, tables, figures and artifacts. Knows no W&B."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cso_lab.files import read_json, read_jsonl
from cso_lab.tracking import TrackedCell

# Where a stage logs its steps while it is under way.
STEP_LOGS = {"train": "train_log.jsonl", "start": "train_log.jsonl"}


@dataclass(frozen=True)
class Table:
    """Rows under named columns."""

    columns: list[str]
    rows: list[list]


@dataclass(frozen=True)
class Artifact:
    """Files to keep beside the run; their names in it are relative to `root`."""

    name: str
    kind: str
    root: Path
    files: tuple[Path, ...]

    @property
    def megabytes(self) -> float:
        return sum(file.stat().st_size for file in self.files) / 1e6


@dataclass(frozen=True)
class Content:
    """What is shown of one stage. `figures` are matplotlib's."""

    summary: dict[str, object] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, object] = field(default_factory=dict)
    artifact: Artifact | None = None


def search(folder: Path, cell: TrackedCell) -> Content:
    summary = _object(folder / "search.json")
    kept = {key: value for key, value in summary.items() if key not in ("corpus", "budget", "estimate")}
    kept["set_aside"] = len(summary.get("set_aside", ()))
    return Content(flat(kept, "search"))


def dataset(folder: Path, cell: TrackedCell) -> Content:
    files = (*sorted(folder.glob("preferences/*.jsonl")), folder / "statistics.json")
    return Content(
        flat(_object(folder / "statistics.json"), "dataset"),
        artifact=Artifact(f"dataset-{folder.name}", "dataset", folder, files),
    )


def train(folder: Path, cell: TrackedCell) -> Content:
    checkpoint = folder / "checkpoint"
    files = tuple(sorted(path for path in checkpoint.rglob("*") if path.is_file()))
    summary = flat(_object(folder / "training.json"), "training")
    return Content(summary, artifact=Artifact(f"checkpoint-{cell.name}", "model", checkpoint, files))


def generate(folder: Path, cell: TrackedCell) -> Content:
    rows = read_jsonl(folder / "predictions.jsonl")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(columns, [[row.get(column) for column in columns] for row in rows])
    return Content(flat(_object(folder / "usage.json"), "generation"), {"predictions": table})


def evaluate(folder: Path, cell: TrackedCell) -> Content:
    """metrics.json under its own names, the paper's values and the differences to them, and what was chosen instead of what."""
    from cso_lab.tracking.figures import confusion, preferences
    from cso_lab.tracking.paper_comparison import paper_comparison

    metrics = _object(folder / "metrics.json")
    kept = {key: value for key, value in metrics.items() if key not in ("per_turn", "cell")}
    beside, comparison = paper_comparison(folder, cell.table)
    strategies = metrics.get("strategies") or {}
    columns = list(dict.fromkeys(key for values in strategies.values() for key in values))
    by_strategy = [[name, *(values.get(column) for column in columns)] for name, values in strategies.items()]
    return Content(
        flat(kept) | beside,
        {"paper_comparison": comparison, "strategies": Table(["strategy", *columns], by_strategy)},
        {"figures/preferences": preferences(strategies), "figures/confusion": confusion(folder, list(strategies))},
    )


# Whatever else leaves files (the strategy test set) is not shown.
CONTENTS: Mapping[str, Callable[[Path, TrackedCell], Content]] = {
    "search": search,
    "dataset": dataset,
    "start": lambda folder, cell: Content(),  # the SFT training a preference algorithm starts from: its steps alone
    "train": train,
    "generate": generate,
    "evaluate": evaluate,
}


def pictures(folder: Path) -> dict[str, Path]:
    """{name: file} of the PNG figures a stage has drawn into a folder."""
    return {f"figures/{file.stem}": file for where in (folder, folder / "figures") for file in sorted(where.glob("*.png"))}


def steps_after(file: Path, last: int) -> Iterator[dict]:
    """The entries of a step log after step `last`, also while it is being written: half a line is left for later."""
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n") and (entry := json.loads(line)).get("step", 0) > last:
            yield entry


def flat(value: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested objects as one, keys joined by "/"; numbers, flags and words stay, lists of two bounds become low and high."""
    found = {}
    for key, child in value.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(child, Mapping):
            found |= flat(child, name)
        elif isinstance(child, list) and len(child) == 2 and all(map(is_number, child)):
            found |= {f"{name}/low": child[0], f"{name}/high": child[1]}
        elif isinstance(child, str | bool) or is_number(child):
            found[name] = child
    return found


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _object(file: Path) -> dict:
    return read_json(file) if file.exists() else {}
