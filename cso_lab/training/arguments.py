"""The configuration of a TRL trainer: the training's settings, overridden by the algorithm's own, and the batch of each process."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from cso_lab.config.cells import zero_stage
from cso_lab.core.errors import UserError, unknown
from cso_lab.training.backbone import device, resolve_dtype

if TYPE_CHECKING:
    from transformers import TrainingArguments

# Rows per forward pass without prefix sharing, where every row is padded to the longest.
_UNSHARED_BATCH = 4


def unshared_batch(training: DictConfig) -> int:
    """Returns how many rows a process takes per forward pass, at most, if prefixes are not shared."""
    return training.per_device_batch_size or _UNSHARED_BATCH


def batches(cfg: DictConfig) -> tuple[int, int]:
    """Returns the rows a process takes per forward pass and the gradient accumulation steps.

    training.batch_size = rows x steps x processes. If prefixes are shared, a process takes all its rows of an optimizer step in one
    forward pass, unless `training.per_device_batch_size` is set. Raises UserError if the batch size cannot be divided so.
    """
    training, processes = cfg.training, cfg.hardware.processes
    if training.batch_size % processes:
        raise UserError(f"training.batch_size={training.batch_size} is no multiple of hardware.processes ({processes})")
    process_rows = training.batch_size // processes
    rows = training.per_device_batch_size
    rows = rows or (process_rows if training.share_prefixes else min(process_rows, unshared_batch(training)))
    if process_rows % rows:
        raise UserError(
            f"training.batch_size={training.batch_size} is no multiple of training.per_device_batch_size"
            f" ({rows}) x hardware.processes ({processes}): choose one that divides it"
        )
    return rows, process_rows // rows


def trainer_arguments(cfg: DictConfig, per_device_batch: int, accumulation: int, folder: Path) -> "TrainingArguments":
    """Returns the trainer's configuration: the values of `cfg.training`, overridden by those of `cfg.algorithm.arguments`.

    `folder` is where resumable checkpoints go. Raises UserError if a name is unknown or the settings contradict each other.
    """
    import torch
    from hydra.utils import instantiate

    training, resolved_device = cfg.training, device(cfg)
    on_cpu = resolved_device == "cpu"
    checkpointing = training.gradient_checkpointing
    shared = {
        "output_dir": str(folder),
        "per_device_train_batch_size": per_device_batch,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": training.learning_rate,
        "num_train_epochs": training.num_train_epochs,
        "max_steps": training.max_steps,
        "lr_scheduler_type": training.lr_scheduler_type,
        # transformers takes a value below 1 as a fraction of all steps
        "warmup_steps": training.warmup_ratio,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": training.optim,
        "activation_checkpointing": not on_cpu if checkpointing == "auto" else checkpointing,
        "bf16": resolve_dtype(training.dtype, resolved_device) == torch.bfloat16,
        "use_cpu": on_cpu,
        # Rows are within these limits already, so this never truncates one; some trainers take None for 512.
        "max_length": training.max_prompt_length + training.max_target_length,
        "save_strategy": "steps",
        "save_steps": training.save_steps,
        "save_total_limit": 2,
        "logging_steps": training.logging_steps,
        # If on, a NaN loss would be logged as 0.
        "logging_nan_inf_filter": False,
        "seed": training.seed,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": not on_cpu,
        **_parallel_arguments(cfg, on_cpu),
    }
    algorithm = instantiate(cfg.algorithm.arguments, _partial_=True, _convert_="all")
    if not _takes(algorithm.func, "max_length"):  # a trainer of prompts has no responses to limit
        del shared["max_length"]
    settings = {**shared, **algorithm.keywords}
    if "precompute_ref_log_probs" in settings and zero_stage(cfg) == 3:
        # Precomputing would wrap the same model in a second DeepSpeed engine, whose hooks then break the training.
        settings["precompute_ref_log_probs"] = False
    _check_names(algorithm.func, algorithm.keywords, training)
    try:
        arguments = algorithm.func(**settings)
    except (TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the training settings of algo={cfg.algorithm.name} (training, algorithm.arguments) do not go together: {reason}"
        ) from error
    if arguments.parallel_mode.value == "not_distributed":
        # A process uses one GPU. With more, transformers would wrap the model in DataParallel, which these trainers refuse.
        arguments._n_gpu = 1
    if cfg.hardware.deepspeed is not None:
        import deepspeed

        # DeepSpeed must adopt the process group now: initialized later, by the model, it would assume a single process.
        deepspeed.init_distributed()
    return arguments


def _check_names(config_class: type, algorithm_arguments: dict, training: DictConfig) -> None:
    """Raises UserError if an optimizer, a schedule or an algorithm's argument has a name that is not valid."""
    from transformers import SchedulerType
    from transformers.training_args import OptimizerNames

    for key, names in (("optim", OptimizerNames), ("lr_scheduler_type", SchedulerType)):
        if training[key] not in list(names):
            raise unknown(f"training.{key}", training[key], [name.value for name in names])
    if not is_dataclass(config_class):
        return
    valid = [field.name for field in fields(config_class) if field.init]
    if invalid := next((key for key in algorithm_arguments if key not in valid), None):
        raise unknown("key under algorithm.arguments", invalid, valid)


def _takes(config_class: type, name: str) -> bool:
    """Returns whether a trainer's configuration has this field; a class that is no dataclass is taken to have it."""
    return not is_dataclass(config_class) or name in {field.name for field in fields(config_class)}


def _parallel_arguments(cfg: DictConfig, on_cpu: bool) -> dict:
    """Returns the trainer's arguments for training in several processes."""
    if cfg.hardware.deepspeed is not None:
        return {"deepspeed": deepspeed_settings(cfg.hardware, on_cpu)}
    if cfg.hardware.processes == 1:
        return {}
    return {"ddp_find_unused_parameters": False, **({"ddp_backend": "gloo"} if on_cpu else {})}


def deepspeed_settings(hardware: DictConfig, on_cpu: bool) -> dict:
    """Returns DeepSpeed's configuration, with the optimizer's states in the CPU's memory if `hardware.offload`."""
    settings = OmegaConf.to_container(hardware.deepspeed, resolve=True)
    if hardware.offload:
        settings["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": not on_cpu}
        # PyTorch's own optimizer, as without offload; DeepSpeed's for CPUs would have to be compiled.
        settings["zero_force_ds_cpu_optimizer"] = False
    return settings
