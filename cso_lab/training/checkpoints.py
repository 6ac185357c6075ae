"""Checkpoints on disk: the resumable ones of a training in progress, and the final one."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cso_lab.core.manifest import MANIFEST, damage, write_manifest
from cso_lab.training.backbone import START, is_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer


def last_checkpoint(steps: Path) -> Path | None:
    """Returns the latest complete `checkpoint-N` in the folder `steps`, or None. Call `drop_damaged` first."""
    return next((folder for folder in _latest_first(steps) if (folder / MANIFEST).exists()), None)


def drop_damaged(steps: Path) -> str | None:
    """Removes the latest checkpoints in the folder `steps` until the latest one is complete and undamaged.

    A training that was killed may leave an incomplete checkpoint, and a full disk truncates files. Returns one line that names what was
    removed, why, and what the training resumes from; None if nothing was removed.
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
    last = last_checkpoint(steps)
    return f"{'; '.join(dropped)}; the training " + (f"goes on from {last.name}" if last else "starts afresh")


def step_of(folder: Path) -> int:
    """Returns the number of optimizer steps done at a `checkpoint-N`."""
    return int(folder.name.rsplit("-", 1)[1])


def _latest_first(steps: Path) -> list[Path]:
    return sorted(steps.glob("checkpoint-*"), key=step_of, reverse=True)


def save(trainer: "Trainer", tokenizer: "PreTrainedTokenizerBase", folder: Path, start: Path | None) -> None:
    """Writes the trained adapter or model and the tokenizer to `folder` as safetensors and JSON, atomically, with a manifest.

    The checkpoint `start` that an adapter was trained on is copied into `folder`/start.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    model = trainer.accelerator.unwrap_model(trainer.model)
    # Under ZeRO-3 every process holds a part of the weights: all processes take part in collecting them, the first writes.
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
