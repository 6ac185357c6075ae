"""Preference rows -> checkpoint, by the TRL trainer that the algorithm's YAML names."""

import gc
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

from cso_lab.errors import UserError, unknown
from cso_lab.files import read_json
from cso_lab.training.backbone import (
    START,
    device,
    is_adapter,
    load_tokenizer,
    load_weights,
    quiet_libraries,
    resolve_dtype,
)
from cso_lab.training.balance import balance_warning
from cso_lab.training.launch import WORKERS, in_processes, train_in_processes
from cso_lab.training.rows import ChatFormat, fit_rows, read_rows

CHECKPOINT = "checkpoint"
LOG = "train_log.jsonl"
# Resumable checkpoints of a training under way; gone once it has ended.
_STEPS = "steps"
# Rows at once without prefix sharing, where every row is padded to the longest.
_STOCK_BATCH = 4


def train(cfg, data: Path, out: Path, start: Path | None = None) -> dict:
    """Train `cfg.algorithm` on the rows in the folder `data`; leaves `out`/checkpoint and `out`/train_log.jsonl.

    `start` is the checkpoint of an SFT run to start from, which is then also the reference model of a preference algorithm
    (merged into the base weights where an adapter is trained). An interrupted training continues from its last complete
    checkpoint and ends the same. Where `cfg.hardware` asks for several processes, they are started and waited for. Returns `rows`
    (see RowCounts), `steps`, `seconds`, `rows_per_second`, `dtype`, `device` and `loss` of the last step; times count from where this
    call began.
    """
    if cfg.algorithm.trainer is None:
        raise UserError(f"algo={cfg.algorithm.name} trains nothing: leave the train stage out, or choose another algo")
    if "LOCAL_RANK" in os.environ:
        raise UserError("a run starts the processes of its training itself: run it without torchrun, with hardware.processes=N")
    batches(cfg)
    _clear_incomplete(Path(out) / _STEPS)
    return (train_in_processes if in_processes(cfg) else train_here)(cfg, Path(data), Path(out), start)


def train_here(cfg, data: Path, out: Path, start: Path | None) -> dict:
    """`train` in this process, which may be one of several that do the same."""
    from peft.helpers import disable_input_dtype_casting

    algorithm, training = cfg.algorithm, cfg.training
    at_once, accumulation = batches(cfg)

    quiet_libraries()
    chat = ChatFormat(load_tokenizer(cfg))
    limits = (training.max_prompt_length, training.max_target_length)
    rows, counts = fit_rows(read_rows(data, algorithm.rows), chat, *limits, training.max_rows, training.seed)

    arguments = _arguments(cfg, at_once, accumulation, out / _STEPS)
    if "label" in rows[0] and arguments.process_index == 0 and (warning := _balance(cfg.algorithm, rows)):
        print(warning, file=sys.stderr)
    trainer = _build_trainer(cfg, arguments, rows, chat.tokenizer, out, start)
    began = time.perf_counter()
    resumed = last_complete_checkpoint(out / _STEPS)
    # Autocast casts for an adapter as well; PEFT's own cast would only take the inputs to float32 and back.
    with disable_input_dtype_casting(trainer.model, active=arguments.bf16):
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    seconds = time.perf_counter() - began

    _save(trainer, chat.tokenizer, out / CHECKPOINT, start)
    if arguments.process_index == 0:
        shutil.rmtree(out / _STEPS, ignore_errors=True)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    done = trainer.state.global_step - (0 if resumed is None else _step(resumed))
    summary = {
        "rows": asdict(counts),
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 2),
        "rows_per_second": round(done * training.batch_size / seconds, 3),
        "dtype": str(resolve_dtype(training.dtype, device(cfg))).removeprefix("torch."),
        "device": device(cfg),
        "loss": log[-1]["loss"] if log else None,
    }
    _free(trainer)
    return summary


def _balance(algorithm, rows: list[dict]) -> str | None:
    desirable = sum(row["label"] for row in rows)
    return balance_warning(desirable, len(rows) - desirable, algorithm.desirable_weight, algorithm.undesirable_weight)


def batches(cfg) -> tuple[int, int]:
    """Rows a process takes at once, and how many such steps' gradients are added up: batch_size = rows x steps x processes.

    Where prefixes are shared a process takes all its rows of a step at once, unless `training.per_device_batch_size` says how many.
    """
    training, processes = cfg.training, cfg.hardware.processes
    if training.batch_size % processes:
        raise UserError(f"training.batch_size={training.batch_size} is no multiple of hardware.processes ({processes})")
    share = training.batch_size // processes
    at_once = training.per_device_batch_size or (share if training.share_prefixes else min(share, _STOCK_BATCH))
    if share % at_once:
        raise UserError(
            f"training.batch_size={training.batch_size} is no multiple of training.per_device_batch_size"
            f" ({at_once}) x hardware.processes ({processes}): choose one that divides it"
        )
    return at_once, share // at_once


def last_complete_checkpoint(steps: Path) -> Path | None:
    """The latest `checkpoint-N` in a folder that was written to its end."""
    return max(filter(_complete, steps.glob("checkpoint-*")), key=_step, default=None)


def _complete(folder: Path) -> bool:
    """Whether the trainer's state, which is written last, can be read."""
    try:
        return read_json(folder / "trainer_state.json")["global_step"] == _step(folder)
    except UserError:
        return False


def _clear_incomplete(steps: Path) -> None:
    """Remove the checkpoint that a killed training did not finish writing."""
    for folder in steps.glob("checkpoint-*"):
        if not _complete(folder):
            shutil.rmtree(folder)


def _step(folder: Path) -> int:
    return int(folder.name.rsplit("-", 1)[1])


def _build_trainer(cfg, arguments, rows: list[dict], tokenizer, out: Path, start: Path | None):
    """The algorithm's trainer, with the model it trains, its rows and what it reports to."""
    import torch
    from datasets import Dataset
    from hydra.utils import instantiate
    from transformers import PrinterCallback, set_seed

    from cso_lab.training.batching import Epochs, TreeSampler, filled, tree_order
    from cso_lab.training.progress import StepLog, StepProgress
    from cso_lab.training.sharing import sharing

    mode, training = cfg.finetune_mode, cfg.training
    number_type = resolve_dtype(training.dtype, device(cfg))
    # An adapter is small and stays float32 on weights of `number_type`. In full training the float32 weights themselves are
    # what is stepped: at these learning rates most steps would vanish in bfloat16's rounding.
    weights_type = torch.float32 if mode.peft is None else number_type
    set_seed(training.seed)
    model = load_weights(cfg, start, weights_type)
    adapter = {} if mode.peft is None else {"peft_config": instantiate(mode.peft, _convert_="all")}
    if training.batching == "tree":
        # For trainers that compute reference log-probabilities before training, or read rows as they come.
        rows = [rows[i] for i in tree_order(*_trees(rows), training.batch_size, training.seed)]
    drawn = training.batching == "tree" and arguments.train_sampling_strategy == "random"
    round_of_all = arguments.per_device_train_batch_size * arguments.world_size
    if arguments.train_sampling_strategy != "random" and arguments.world_size > 1:
        rows = filled(rows, round_of_all)
    dataset = Dataset.from_list([{field: row[field] for field in row if field != "dialogue"} for row in rows])
    if arguments.world_size > 1:
        dataset = _for_all(dataset, out / WORKERS / "rows", arguments)

    make = instantiate(cfg.algorithm.trainer, _partial_=True)
    with sharing(make.func, training) as share:
        trainer = make(
            model=model,
            args=arguments,
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=[StepLog(out / LOG), StepProgress(cfg.algorithm.label)],
            **adapter,
        )
        share(trainer)
    trainer.remove_callback(PrinterCallback)
    if drawn:
        sampler = TreeSampler(
            *_trees(rows), training.batch_size, training.seed, round_of_all if arguments.world_size > 1 else 1
        )
        trainer._get_train_sampler = lambda dataset=None: sampler
        trainer.add_callback(Epochs(sampler))
    return trainer


def _for_all(dataset, folder: Path, arguments):
    """The dataset from one place on disk, where all processes find what one of them computes of it (reference log-probabilities)."""
    from datasets import load_from_disk

    with arguments.main_process_first(local=False):
        if arguments.process_index == 0:
            dataset.save_to_disk(folder)
    return load_from_disk(folder)


def _trees(rows: list[dict]) -> tuple[list[str], list[str]]:
    return [row["dialogue"] for row in rows], [row["prompt"] for row in rows]


def _arguments(cfg, at_once: int, accumulation: int, folder: Path):
    """The trainer's configuration: what `cfg.training` says, and over it what the algorithm's own `arguments` say."""
    import torch
    from hydra.utils import instantiate

    training, where = cfg.training, device(cfg)
    checkpointing = training.gradient_checkpointing
    if checkpointing not in ("auto", True, False):
        raise unknown("training.gradient_checkpointing", checkpointing, ("auto", "true", "false"))
    shared = {
        "output_dir": str(folder),
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": training.learning_rate,
        "num_train_epochs": training.num_train_epochs,
        "max_steps": training.max_steps,
        "lr_scheduler_type": training.lr_scheduler_type,
        # below 1, this is a share of all steps
        "warmup_steps": training.warmup_ratio,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": training.optim,
        "activation_checkpointing": where != "cpu" if checkpointing == "auto" else checkpointing,
        "bf16": resolve_dtype(training.dtype, where) == torch.bfloat16,
        "use_cpu": where == "cpu",
        # Rows are fitted already: this never cuts one, and None would mean 512 to some trainers.
        "max_length": training.max_prompt_length + training.max_target_length,
        "save_strategy": "steps",
        "save_steps": training.save_steps,
        "save_total_limit": 2,
        "logging_steps": training.logging_steps,
        # On, it would log a NaN loss as 0.
        "logging_nan_inf_filter": False,
        "seed": training.seed,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": where != "cpu",
        **_parallel(cfg, where),
    }
    own = instantiate(cfg.algorithm.arguments, _partial_=True, _convert_="all")
    try:
        arguments = own.func(**{**shared, **own.keywords})
    except (TypeError, ValueError) as error:
        raise UserError(f"the training settings of algo={cfg.algorithm.name} do not go together: {error}") from error
    if arguments.parallel_mode.value == "not_distributed":
        # One process takes one GPU; the trainers refuse to spread a model over all that are visible.
        arguments._n_gpu = 1
    if cfg.hardware.deepspeed is not None:
        import deepspeed

        # It takes over the processes' group; asked for no sooner than by the model, it would think itself alone.
        deepspeed.init_distributed()
    return arguments


def _parallel(cfg, where: str) -> dict:
    """The arguments with which several processes train together."""
    from omegaconf import OmegaConf

    if cfg.hardware.deepspeed is not None:
        return {"deepspeed": OmegaConf.to_container(cfg.hardware.deepspeed, resolve=True)}
    if cfg.hardware.processes == 1:
        return {}
    return {"ddp_find_unused_parameters": False, **({"ddp_backend": "gloo"} if where == "cpu" else {})}


def _save(trainer, tokenizer, folder: Path, start: Path | None) -> None:
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
