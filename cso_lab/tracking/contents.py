"""What is shown of each stage, read from its files: numbers, tables, figures and artifacts. Independent of W&B."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cso_lab.conversation.records import CONVERSATION_METRICS
from cso_lab.core.files import read_json, read_jsonl
from cso_lab.core.tables import Table, sentence
from cso_lab.tracking import TrackedCell
from cso_lab.tracking.figures import confusion_figure, preference_figure, transition_figure
from cso_lab.tracking.paper_comparison import paper_comparison

# Where the mean intensity of a cell's conversations after every turn is logged.
CURVE, CURVE_AXIS = "conversation_curve", "conversation_curve/turn"
# {stage: the file it logs its steps in while it runs}.
STEP_LOGS = {"train": "train_log.jsonl", "start": "train_log.jsonl"}


@dataclass(frozen=True)
class Artifact:
    """Files to keep with the run, under their paths relative to `root`."""

    name: str
    kind: str
    root: Path
    files: tuple[Path, ...]

    @property
    def megabytes(self) -> float:
        """The size of all files together."""
        return sum(file.stat().st_size for file in self.files) / 1e6


@dataclass(frozen=True)
class Content:
    """What is shown of one stage: {name: value}, {name: table}, {name: figure of matplotlib}, the points of a curve, and files to keep."""

    summary: dict[str, object] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, object] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    artifact: Artifact | None = None


def search(folder: Path, cell: TrackedCell) -> Content:
    """Returns the numbers of search.json, without its estimate and budget."""
    summary = _object(folder / "search.json")
    numbers = {key: value for key, value in summary.items() if key not in ("corpus", "budget", "estimate")}
    numbers["set_aside"] = len(summary.get("set_aside", ()))
    return Content(flat(numbers, "search"))


def dataset(folder: Path, cell: TrackedCell) -> Content:
    """Returns the numbers of statistics.json, and the preference data as an artifact."""
    files = (*sorted(folder.glob("preferences/*.jsonl")), folder / "statistics.json")
    return Content(
        flat(_object(folder / "statistics.json"), "dataset"),
        artifact=Artifact(f"dataset-{folder.name}", "dataset", folder, files),
    )


def train(folder: Path, cell: TrackedCell) -> Content:
    """Returns the numbers of training.json, and the checkpoint as an artifact."""
    checkpoint = folder / "checkpoint"
    files = tuple(sorted(path for path in checkpoint.rglob("*") if path.is_file()))
    summary = flat(_object(folder / "training.json"), "training")
    return Content(summary, artifact=Artifact(f"checkpoint-{cell.name}", "model", checkpoint, files))


def generate(folder: Path, cell: TrackedCell) -> Content:
    """Returns the numbers of usage.json, and the predictions as a table."""
    rows = read_jsonl(folder / "predictions.jsonl")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table("Predictions", columns, [[row.get(column) for column in columns] for row in rows])
    return Content(flat(_object(folder / "usage.json"), "generation"), {"predictions": table})


def evaluate(folder: Path, cell: TrackedCell) -> Content:
    """Returns metrics.json under its own names, the paper's scores with our differences, and figures of the strategies chosen."""
    metrics = _object(folder / "metrics.json")
    numbers = {key: value for key, value in metrics.items() if key not in ("per_turn", "cell")}
    paper, comparison = paper_comparison(folder, cell.table)
    strategies = metrics.get("strategies") or {}
    columns = list(dict.fromkeys(key for values in strategies.values() for key in values))
    by_strategy = [[name, *(values.get(column) for column in columns)] for name, values in strategies.items()]
    return Content(
        flat(numbers) | paper,
        {"paper_comparison": comparison, "strategies": Table("Strategies", ["strategy", *columns], by_strategy)},
        {"figures/preferences": preference_figure(strategies), "figures/confusion": confusion_figure(folder, list(strategies))},
    )


def converse(folder: Path, cell: TrackedCell) -> Content:
    """Returns the numbers of conversation_metrics.json but for those by scene, the intensity after every turn as a curve, and a figure of
    which strategy follows which."""
    metrics = _object(folder / CONVERSATION_METRICS)
    harm = {key: metrics["harm"][key] for key in ("count", "unjudged", "kinds")}
    numbers = {key: metrics[key] for key in ("n", "set_aside", "endings", "usage")}
    numbers |= {"harm": harm, "strategies": metrics["strategies"]["share"], **_measures(metrics["measures"])}
    numbers["by_persona"] = {name: _measures(group["measures"]) for name, group in metrics["by_persona"].items()}
    numbers["notices"] = " ".join(map(sentence, metrics["context"]["notices"]))
    curve = [{CURVE_AXIS: turn} | flat(_measures({"intensity": point}), CURVE) for turn, point in enumerate(metrics["curve"])]
    return Content(
        flat(numbers, "conversation"), figures={"figures/transitions": transition_figure(metrics["strategies"])}, curve=curve
    )


# Other stages (the strategy test set) are not shown.
CONTENTS: Mapping[str, Callable[[Path, TrackedCell], Content]] = {
    "search": search,
    "dataset": dataset,
    "start": lambda folder, cell: Content(),  # the SFT training a preference algorithm starts from: its steps alone
    "train": train,
    "converse": converse,
    "generate": generate,
    "evaluate": evaluate,
}


def image_files(folder: Path) -> dict[str, Path]:
    """Returns {name: file} of the PNG figures in a folder and its `figures`."""
    return {f"figures/{file.stem}": file for parent in (folder, folder / "figures") for file in sorted(parent.glob("*.png"))}


def steps_after(file: Path, last: int) -> Iterator[dict]:
    """Yields the entries of a step log after step `last`; an unfinished last line is left out, since it may still be written."""
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n") and (entry := json.loads(line)).get("step", 0) > last:
            yield entry


def flat(value: Mapping, prefix: str = "") -> dict[str, object]:
    """Returns nested objects as one, with keys joined by "/".

    Numbers, booleans and texts are kept, lists of two numbers become NAME/low and NAME/high, anything else is left out.
    """
    values = {}
    for key, child in value.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(child, Mapping):
            values |= flat(child, name)
        elif isinstance(child, list) and len(child) == 2 and all(map(is_number, child)):
            values |= {f"{name}/low": child[0], f"{name}/high": child[1]}
        elif isinstance(child, str | bool) or is_number(child):
            values[name] = child
    return values


def is_number(value: object) -> bool:
    """Returns whether a value is a finite number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _measures(measures: Mapping[str, Mapping]) -> dict:
    """Returns {name: value, name/low: ..., name/high: ...} of measures."""
    values = {name: measure["value"] for name, measure in measures.items()}
    bounds = {f"{name}/{end}": measure[end] for name, measure in measures.items() for end in ("low", "high")}
    return values | bounds


def _object(file: Path) -> dict:
    return read_json(file) if file.exists() else {}
