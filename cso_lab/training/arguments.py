"""What a TRL trainer is configured with: the training's settings, the algorithm's own over them, and the shares of the processes."""

from dataclasses import fields, is_dataclass
from pathlib import Path

from cso_lab.core.errors import UserError, unknown
from cso_lab.training.backbone import device, resolve_dtype

# Rows at once without prefix sharing, where every row is padded to the longest.
_STOCK_BATCH = 4


def stock_batch(training) -> int:
    """Rows a process takes at once, at most, where prefixes are not shared."""
    return training.per_device_batch_size or _STOCK_BATCH


def batches(cfg) -> tuple[int, int]:
    """Rows a process takes at once, and how many such steps' gradients are added up: batch_size = rows x steps x processes.

    Where prefixes are shared a process takes all its rows of a step at once, unless `training.per_device_batch_size` says how many.
    """
    training, processes = cfg.training, cfg.hardware.processes
    if training.batch_size % processes:
        raise UserError(f"training.batch_size={training.batch_size} is no multiple of hardware.processes ({processes})")
    share = training.batch_size // processes
    at_once = training.per_device_batch_size or (share if training.share_prefixes else min(share, stock_batch(training)))
    if share % at_once:
        raise UserError(
            f"training.batch_size={training.batch_size} is no multiple of training.per_device_batch_size"
            f" ({at_once}) x hardware.processes ({processes}): choose one that divides it"
        )
    return at_once, share // at_once


def trainer_arguments(cfg, at_once: int, accumulation: int, folder: Path):
    """The trainer's configuration: what `cfg.training` says, and over it what the algorithm's own `arguments` say."""
    import torch
    from hydra.utils import instantiate

    training, where = cfg.training, device(cfg)
    checkpointing = training.gradient_checkpointing
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
    settings = {**shared, **own.keywords}
    if "precompute_ref_log_probs" in settings and _shares_out_weights(cfg):
        # Beforehand they would be computed by a second engine around the same model, whose hooks then break the training.
        settings["precompute_ref_log_probs"] = False
    _check_names(own.func, own.keywords, training)
    try:
        arguments = own.func(**settings)
    except (TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the training settings of algo={cfg.algorithm.name} (training, algorithm.arguments) do not go together: {reason}"
        ) from error
    if arguments.parallel_mode.value == "not_distributed":
        # One process takes one GPU; the trainers refuse to spread a model over all that are visible.
        arguments._n_gpu = 1
    if cfg.hardware.deepspeed is not None:
        import deepspeed

        # It takes over the processes' group; asked for no sooner than by the model, it would think itself alone.
        deepspeed.init_distributed()
    return arguments


def _check_names(kind: type, own, training) -> None:
    """Raises UserError if a name among the settings is none that transformers or the algorithm's configuration `kind` knows."""
    from transformers import SchedulerType
    from transformers.training_args import OptimizerNames

    for key, names in (("optim", OptimizerNames), ("lr_scheduler_type", SchedulerType)):
        if training[key] not in list(names):
            raise unknown(f"training.{key}", training[key], [name.value for name in names])
    known = [field.name for field in fields(kind) if field.init] if is_dataclass(kind) else list(own)
    if strange := next((key for key in own if key not in known), None):
        raise unknown("key under algorithm.arguments", strange, known)


def _shares_out_weights(cfg) -> bool:
    """Whether DeepSpeed is at ZeRO's stage 3."""
    from omegaconf import OmegaConf

    return OmegaConf.select(cfg, "hardware.deepspeed.zero_optimization.stage") == 3


def _parallel(cfg, where: str) -> dict:
    """The arguments with which several processes train together."""
    from omegaconf import OmegaConf

    if cfg.hardware.deepspeed is not None:
        return {"deepspeed": OmegaConf.to_container(cfg.hardware.deepspeed, resolve=True)}
    if cfg.hardware.processes == 1:
        return {}
    return {"ddp_find_unused_parameters": False, **({"ddp_backend": "gloo"} if where == "cpu" else {})}
