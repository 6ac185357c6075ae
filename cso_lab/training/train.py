"""Trains a checkpoint on preference rows with the TRL trainer that the algorithm's YAML names (section 5.1 and appendix F.2)."""

import gc
import os
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from cso_lab.core.errors import UserError
from cso_lab.training.allocator import freed_memory_kept
from cso_lab.training.arguments import batches, trainer_arguments
from cso_lab.training.backbone import device, load_chat_format, quiet_libraries, resolve_dtype
from cso_lab.training.balance import balance_warning
from cso_lab.training.checkpoints import drop_damaged, last_checkpoint, save, step_of
from cso_lab.training.processes import in_processes, train_in_processes
from cso_lab.training.rows import fit_rows, read_rows
from cso_lab.training.trainer import build_trainer

CHECKPOINT = "checkpoint"
# Resumable checkpoints of a training in progress; removed at its end.
_STEPS = "steps"


def train(cfg: DictConfig, data: Path, out: Path, start: Path | None = None) -> dict:
    """Trains `cfg.algorithm` on the rows in the folder `data`; writes `out`/checkpoint and `out`/train_log.jsonl.

    `start` is the checkpoint of an SFT run to start from, which is then also the reference model of a preference algorithm
    (merged into the base weights if an adapter is trained). An interrupted training continues from its last undamaged checkpoint and
    ends with the same weights; damaged later ones are removed and named on stderr. If `cfg.hardware` asks for several processes, this
    call starts them and waits for them.

    Returns `rows` (see RowCounts), `steps`, `seconds`, `rows_per_second`, `dtype`, `device` and `loss` of the last step. If prefixes are
    shared, there are also `tokens_computed`, `tokens_as_rows` (see TokenCount) and `token_ratio` over all processes and forward passes,
    the reference model's included, `attention`, the form of the mask of a tree of `training.tokens_per_tree` tokens, and `compilations`,
    the number of graphs that torch compiled for this training in the first process. A resumed training counts seconds, tokens and
    compilations from this call on.

    Raises UserError if the algorithm trains nothing, if torchrun started this run, or if rows or settings do not allow a training.
    """
    if cfg.algorithm.trainer is None:
        raise UserError(f"algo={cfg.algorithm.name} trains nothing: leave the train stage out, or choose another algo")
    if "LOCAL_RANK" in os.environ:
        raise UserError("a run starts the processes of its training itself: run it without torchrun, with hardware.processes=N")
    batches(cfg)
    if dropped := drop_damaged(Path(out) / _STEPS):
        print(dropped, file=sys.stderr)
    return (train_in_processes if in_processes(cfg) else train_here)(cfg, Path(data), Path(out), start)


def train_here(cfg: DictConfig, data: Path, out: Path, start: Path | None) -> dict:
    """Trains in this process, which may be one of several of the same training; arguments and result are those of `train`."""
    with freed_memory_kept() if device(cfg) == "cpu" else nullcontext():
        return _train(cfg, data, out, start)


def _train(cfg: DictConfig, data: Path, out: Path, start: Path | None) -> dict:
    from peft.helpers import disable_input_dtype_casting

    from cso_lab.training.flex_attention import compilations
    from cso_lab.training.tree_attention import attention_form

    algorithm, training = cfg.algorithm, cfg.training
    per_device_batch, accumulation = batches(cfg)

    quiet_libraries()
    chat = load_chat_format(cfg)
    limits = (training.max_prompt_length, training.max_target_length)
    rows, counts = fit_rows(read_rows(data, algorithm.rows), chat, *limits, training.max_rows, training.seed)

    arguments = trainer_arguments(cfg, per_device_batch, accumulation, out / _STEPS)
    if "label" in rows[0] and arguments.process_index == 0 and (warning := _kto_balance_warning(cfg.algorithm, rows)):
        print(warning, file=sys.stderr)
    compiled_before = compilations()
    trainer = build_trainer(cfg, arguments, rows, chat.tokenizer, out, start)
    start_time = time.perf_counter()
    resumed = last_checkpoint(out / _STEPS)
    # Autocast casts an adapter's inputs as well; PEFT's own cast would only take them to float32 and back.
    with disable_input_dtype_casting(trainer.model, active=arguments.bf16):
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    seconds = time.perf_counter() - start_time

    sharing = {} if trainer.token_count is None else trainer.token_count.summary(trainer.accelerator)
    if training.share_prefixes:
        config = trainer.accelerator.unwrap_model(trainer.model).config.get_text_config()
        sharing["attention"] = attention_form(config, training.tree_mask, device(cfg), training.tokens_per_tree)
        sharing["compilations"] = compilations() - compiled_before
    save(trainer, chat.tokenizer, out / CHECKPOINT, start)
    if arguments.process_index == 0:
        shutil.rmtree(out / _STEPS, ignore_errors=True)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    steps_done = trainer.state.global_step - (0 if resumed is None else step_of(resumed))
    summary = {
        "rows": asdict(counts),
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 2),
        "rows_per_second": round(steps_done * training.batch_size / seconds, 3),
        "dtype": str(resolve_dtype(training.dtype, device(cfg))).removeprefix("torch."),
        "device": device(cfg),
        **sharing,
        "loss": log[-1]["loss"] if log else None,
    }
    _free(trainer)
    return summary


def _kto_balance_warning(algorithm: DictConfig, rows: list[dict]) -> str | None:
    desirable = sum(row["label"] for row in rows)
    return balance_warning(desirable, len(rows) - desirable, algorithm.desirable_weight, algorithm.undesirable_weight)


def _free(trainer) -> None:
    """Frees the memory of the trainer's models, because all jobs of a sweep share one process."""
    import torch

    trainer.model = trainer.model_wrapped = trainer.optimizer = trainer.lr_scheduler = None
    if getattr(trainer, "ref_model", None) is not None:
        trainer.ref_model = None
    trainer.accelerator.free_memory()
    del trainer
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
