"""What a training shows and writes while it runs."""

import json
import math
from pathlib import Path

from transformers import TrainerCallback

from cso_lab.core.errors import UserError
from cso_lab.core.manifest import write_manifest


class StepLog(TrainerCallback):
    """`train_log.jsonl`: one line an optimizer step. A loss or gradient that is not a number stops the training."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        # A resumed training repeats the steps after its checkpoint: only what came before is kept.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(_line(entry) for entry in state.log_history if "loss" in entry), encoding="utf-8")

    def on_log(self, args, state, control, logs=None, **kwargs):
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
    """Completes every resumable checkpoint with the list of its files (see `core.manifest`), once all processes have written theirs."""

    def on_save(self, args, state, control, **kwargs):
        import torch.distributed as dist

        if dist.is_initialized():
            dist.barrier()
        if state.is_world_process_zero:
            write_manifest(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class StepProgress(TrainerCallback):
    """A progress bar over optimizer steps, with the last loss."""

    def __init__(self, label: str):
        self.label, self.bar = label, None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=f"train {self.label}", unit="step")

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.bar is not None and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.close()


def _line(entry: dict) -> str:
    """A log entry as one JSON line, `step` first; a NaN as null, which JSON can hold."""
    ordered = {"step": entry["step"], **entry}
    finite = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in ordered.items()}
    return json.dumps(finite) + "\n"
