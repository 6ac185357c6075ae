"""Checkpoints on disk: the resumable ones of a training under way, and the one it leaves."""

import os
import shutil
from pathlib import Path

from cso_lab.core.manifest import MANIFEST, damage, write_manifest
from cso_lab.training.backbone import START, is_adapter


def last_checkpoint(steps: Path) -> Path | None:
    """The latest `checkpoint-N` of a training that was written to its end; `drop_damaged` has looked at it before."""
    return next((folder for folder in _latest_first(steps) if (folder / MANIFEST).exists()), None)


def drop_damaged(steps: Path) -> str | None:
    """Remove the latest checkpoints that a training cannot go on from, until there is one that is whole.

    A training that was killed may have left half of one, and a full disk cuts files. Returns what was removed, why, and what the training
    goes on from, in one line; None where nothing was.
    """
    dropped = []
    for folder in _latest_first(steps):
        reason = damage(folder) if (folder / MANIFEST).exists() else "it was not written to its end"
        if reason is None:
            break
        shutil.rmtree(folder)
        dropped.append(f"{folder.name} is left out: {reason}")
    if not dropped:
        return None
    left = last_checkpoint(steps)
    return f"{'; '.join(dropped)}; the training " + (f"goes on from {left.name}" if left else "starts afresh")


def step_of(folder: Path) -> int:
    """The optimizer steps done at a `checkpoint-N`."""
    return int(folder.name.rsplit("-", 1)[1])


def _latest_first(steps: Path) -> list[Path]:
    return sorted(steps.glob("checkpoint-*"), key=step_of, reverse=True)


def save(trainer, tokenizer, folder: Path, start: Path | None) -> None:
    """Write the trained adapter or model and the tokenizer as safetensors and JSON, whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    model = trainer.accelerator.unwrap_model(trainer.model)
    # Under ZeRO-3 every process holds a part: all of them give theirs, one writes.
    state = {}
    if trainer.accelerator.num_processes > 1:
        state["state_dict"] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.args.process_index != 0:
        return
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, **state)
    tokenizer.save_pretrained(partial)
    (partial / "README.md").unlink(missing_ok=True)
    if start is not None and is_adapter(partial):
        shutil.copytree(start, partial / START)
    write_manifest(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
