"""Trainer callbacks: the log of steps, the manifests of resumable checkpoints, the progress bar."""

import json
import math
from pathlib import Path

from transformers import TrainerCallback

from cso_lab.core.errors import UserError
from cso_lab.core.manifest import write_manifest


class StepLog(TrainerCallback):
    """Writes `train_log.jsonl`, one line an optimizer step. Raises UserError if a loss or a gradient norm is not finite."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args, state, control, **kwargs):
        """Starts the file with the steps before the checkpoint that the training resumes from; later steps are run again."""
        if not state.is_world_process_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(_line(entry) for entry in state.log_history if "loss" in entry), encoding="utf-8")

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Appends a step's line. Raises UserError if its loss or gradient norm is not finite."""
        if "loss" not in logs:
            return
        entry = state.log_history[-1]
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(entry))
        for name in ("loss", "grad_norm"):
            if not math.isfinite(entry.get(name, 0.0)):
                raise UserError(
                    f"training stopped: {name} is {entry[name]} at step {entry['step']}; a lower training.learning_rate or"
                    " training.dtype=float32 may help"
                )


class StepManifest(TrainerCallback):
    """Adds a manifest (see `core.manifest`) to every resumable checkpoint once all processes have written their files."""

    def on_save(self, args, state, control, **kwargs):
        """Waits for all processes; the first writes the manifest."""
        import torch.distributed as dist

        if dist.is_initialized():
            dist.barrier()
        if state.is_world_process_zero:
            write_manifest(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class StepProgress(TrainerCallback):
    """Shows a progress bar over optimizer steps, with the last loss."""

    def __init__(self, label: str):
        self.label, self.bar = label, None

    def on_train_begin(self, args, state, control, **kwargs):
        """Opens the bar, in the first process only."""
        if state.is_world_process_zero:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=f"train {self.label}", unit="step")

    def on_step_end(self, args, state, control, **kwargs):
        """Advances the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Shows the loss beside the bar."""
        if self.bar is not None and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        """Closes the bar."""
        if self.bar is not None:
            self.bar.close()


def _line(entry: dict) -> str:
    """Returns a log entry as one JSON line, `step` first; a value that is not finite becomes null, since JSON has no NaN."""
    ordered = {"step": entry["step"], **entry}
    finite = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in ordered.items()}
    return json.dumps(finite) + "\n"
