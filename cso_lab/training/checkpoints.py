"""Checkpoints on disk: the resumable ones of a training under way, and the one it leaves."""

import os
import shutil
from pathlib import Path

from cso_lab.errors import UserError
from cso_lab.files import read_json
from cso_lab.training.backbone import START, is_adapter


def last_complete_checkpoint(steps: Path) -> Path | None:
    """The latest `checkpoint-N` in a folder that was written to its end."""
    return max(filter(_complete, steps.glob("checkpoint-*")), key=step_of, default=None)


def _complete(folder: Path) -> bool:
    """Whether the trainer's state, which is written last, can be read."""
    try:
        return read_json(folder / "trainer_state.json")["global_step"] == step_of(folder)
    except UserError:
        return False


def clear_incomplete(steps: Path) -> None:
    """Remove the checkpoint that a killed training did not finish writing."""
    for folder in steps.glob("checkpoint-*"):
        if not _complete(folder):
            shutil.rmtree(folder)


def step_of(folder: Path) -> int:
    return int(folder.name.rsplit("-", 1)[1])


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
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
