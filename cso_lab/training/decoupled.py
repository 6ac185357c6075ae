"""Trains the two models of a decoupled algorithm one after the other: the strategy planner and the response generator."""

import os
from pathlib import Path

from omegaconf import DictConfig

from cso_lab.config.cells import GENERATOR, PLANNER, parts_of
from cso_lab.core.files import read_json, read_jsonl, write_json, write_jsonl
from cso_lab.core.manifest import write_manifest
from cso_lab.training.backbone import check_whole
from cso_lab.training.train import CHECKPOINT, train
from cso_lab.training.trainer import LOG

# The folder, below the cell's own, with what each of the two trainings leaves.
PARTS = "parts"
_SUMMARY = "training.json"


def train_parts(cfg: DictConfig, data: Path, out: Path, start: Path | None = None) -> dict:
    """Trains planner and generator of `cfg.algorithm`, both from `start`; arguments and errors are those of `train`.

    `out`/checkpoint is the planner's, with the generator's in its folder `generator`. The steps in `out`/train_log.jsonl have their `part`;
    the generator's are counted on from the planner's. An interrupted training is continued; a finished part is not trained again.

    Returns the summaries of `train` under "planner" and "generator", the rows of the planner, and steps and seconds of both.
    """
    folders = {part: Path(out) / PARTS / part for part in (PLANNER, GENERATOR)}
    checkpoint = Path(out) / CHECKPOINT
    if not checkpoint.exists():
        # A generator that was moved already, by a run that ended before the planner was.
        moved = folders[PLANNER] / CHECKPOINT / GENERATOR
        for part, part_cfg in parts_of(cfg).items():
            folder = folders[part]
            done = (folder / CHECKPOINT).exists() or (part == GENERATOR and moved.exists())
            if not (done and (folder / _SUMMARY).exists()):
                write_json(folder / _SUMMARY, train(part_cfg, data, folder, start))
            _write_log(folders, Path(out) / LOG)
        _combine(*(folder / CHECKPOINT for folder in folders.values()), checkpoint)
    summaries = {part: read_json(folder / _SUMMARY) for part, folder in folders.items()}
    both = {key: round(sum(summary[key] for summary in summaries.values()), 2) for key in ("steps", "seconds")}
    return {"rows": summaries[PLANNER]["rows"], **both, **summaries}


def _write_log(folders: dict[str, Path], log: Path) -> None:
    """Writes the steps of the parts that have been trained to one log."""
    entries: list[dict] = []
    for part, folder in folders.items():
        before = entries[-1]["step"] if entries else 0
        steps = read_jsonl(folder / LOG) if (folder / LOG).exists() else []
        entries += [{**entry, "step": before + entry["step"], "part": part} for entry in steps]
    write_jsonl(log, entries)


def _combine(planner: Path, generator: Path, checkpoint: Path) -> None:
    """Moves the planner's checkpoint to `checkpoint` and the generator's below it, with a manifest of both.

    Raises UserError if one of them is damaged.
    """
    check_whole(planner)
    if generator.exists():
        check_whole(generator)
        os.replace(generator, planner / GENERATOR)
    write_manifest(planner)
    os.replace(planner, checkpoint)
