"""Preference rows -> checkpoint, by the TRL trainer that the algorithm's YAML names."""

import gc
import os
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.training.arguments import batches, trainer_arguments
from cso_lab.training.backbone import device, load_tokenizer, quiet_libraries, resolve_dtype
from cso_lab.training.balance import balance_warning
from cso_lab.training.chat_format import ChatFormat
from cso_lab.training.checkpoints import drop_damaged, last_checkpoint, save, step_of
from cso_lab.training.launch import in_processes, train_in_processes
from cso_lab.training.memory import freed_memory_kept
from cso_lab.training.rows import fit_rows, read_rows
from cso_lab.training.trainer import build_trainer

CHECKPOINT = "checkpoint"
# Resumable checkpoints of a training under way; gone once it has ended.
_STEPS = "steps"


def train(cfg, data: Path, out: Path, start: Path | None = None) -> dict:
    """Train `cfg.algorithm` on the rows in the folder `data`; leaves `out`/checkpoint and `out`/train_log.jsonl.

    `start` is the checkpoint of an SFT run to start from, which is then also the reference model of a preference algorithm
    (merged into the base weights where an adapter is trained). An interrupted training continues from its last checkpoint that is
    whole, says so where a later one is not, and ends the same. Where `cfg.hardware` asks for several processes, they are started and
    waited for. Returns `rows` (see RowCounts), `steps`, `seconds`, `rows_per_second`, `dtype`, `device` and `loss` of the last step,
    and where prefixes are shared `tokens_computed`, `tokens_as_rows` (see TokenCount) and `token_ratio`, over all processes and passes,
    the reference model's too. Times and tokens count from where this call began.
    """
    if cfg.algorithm.trainer is None:
        raise UserError(f"algo={cfg.algorithm.name} trains nothing: leave the train stage out, or choose another algo")
    if "LOCAL_RANK" in os.environ:
        raise UserError("a run starts the processes of its training itself: run it without torchrun, with hardware.processes=N")
    batches(cfg)
    if dropped := drop_damaged(Path(out) / _STEPS):
        print(dropped, file=sys.stderr)
    return (train_in_processes if in_processes(cfg) else train_here)(cfg, Path(data), Path(out), start)


def train_here(cfg, data: Path, out: Path, start: Path | None) -> dict:
    """`train` in this process, which may be one of several that do the same."""
    with freed_memory_kept() if device(cfg) == "cpu" else nullcontext():
        return _train(cfg, data, out, start)


def _train(cfg, data: Path, out: Path, start: Path | None) -> dict:
    from peft.helpers import disable_input_dtype_casting

    algorithm, training = cfg.algorithm, cfg.training
    at_once, accumulation = batches(cfg)

    quiet_libraries()
    chat = ChatFormat(load_tokenizer(cfg))
    limits = (training.max_prompt_length, training.max_target_length)
    rows, counts = fit_rows(read_rows(data, algorithm.rows), chat, *limits, training.max_rows, training.seed)

    arguments = trainer_arguments(cfg, at_once, accumulation, out / _STEPS)
    if "label" in rows[0] and arguments.process_index == 0 and (warning := _balance(cfg.algorithm, rows)):
        print(warning, file=sys.stderr)
    trainer = build_trainer(cfg, arguments, rows, chat.tokenizer, out, start)
    began = time.perf_counter()
    resumed = last_checkpoint(out / _STEPS)
    # Autocast casts for an adapter as well; PEFT's own cast would only take the inputs to float32 and back.
    with disable_input_dtype_casting(trainer.model, active=arguments.bf16):
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    seconds = time.perf_counter() - began

    tokens = {} if trainer.token_count is None else trainer.token_count.summary(trainer.accelerator)
    save(trainer, chat.tokenizer, out / CHECKPOINT, start)
    if arguments.process_index == 0:
        shutil.rmtree(out / _STEPS, ignore_errors=True)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    done = trainer.state.global_step - (0 if resumed is None else step_of(resumed))
    summary = {
        "rows": asdict(counts),
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 2),
        "rows_per_second": round(done * training.batch_size / seconds, 3),
        "dtype": str(resolve_dtype(training.dtype, device(cfg))).removeprefix("torch."),
        "device": device(cfg),
        **tokens,
        "loss": log[-1]["loss"] if log else None,
    }
    _free(trainer)
    return summary


def _balance(algorithm, rows: list[dict]) -> str | None:
    desirable = sum(row["label"] for row in rows)
    return balance_warning(desirable, len(rows) - desirable, algorithm.desirable_weight, algorithm.undesirable_weight)


def _free(trainer) -> None:
    """Give the model's memory back: all jobs of a sweep share one process."""
    import torch

    trainer.model = trainer.model_wrapped = trainer.optimizer = trainer.lr_scheduler = None
    if getattr(trainer, "ref_model", None) is not None:
        trainer.ref_model = None
    trainer.accelerator.free_memory()
    del trainer
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
