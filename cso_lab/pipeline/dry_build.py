"""Builds model, adapter and trainer settings without weights, so that a library rejects a setting before the search, not after it.

Models are built on PyTorch's meta device, where tensors have shapes and no values.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf
from pydantic import ValidationError

from cso_lab.config.error_messages import explain, type_and_message
from cso_lab.core.errors import UserError


@contextmanager
def naming(key: str, value: object = None) -> Iterator[None]:
    """Converts the errors of a library within the context to a UserError of one line that names the key."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise explain(error) or UserError(f"{key}{'' if value is None else f'={value}'}: {type_and_message(error)}") from error


def meta_model(cfg, path: str):
    """Returns the backbone on the meta device, without its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    attention = cfg.backbone.attn_implementation
    with naming("backbone.path", path):
        config = AutoConfig.from_pretrained(path)
    with naming("backbone.attn_implementation", attention), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)


def adapter_parameters(cfg, model) -> int:
    """Returns the number of parameters that `finetune_mode` trains of a model on the meta device, which is not changed."""
    from hydra.utils import instantiate
    from peft import get_peft_model

    if cfg.finetune_mode.peft is None:
        return sum(weight.numel() for weight in model.parameters())
    with naming("finetune_mode.peft"):
        settings = instantiate(cfg.finetune_mode.peft, _convert_="all")
        try:
            adapted = get_peft_model(model, settings)
        except RuntimeError:  # some adapters begin with values computed from the weights, which are not there
            return 0
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    adapted.unload()
    for weight in model.parameters():
        weight.requires_grad_(True)
    return trained


def check_deepspeed(cfg) -> None:
    """Raises UserError if DeepSpeed is missing, or rejects the ZeRO settings of `hardware.deepspeed`."""
    key = "hardware.deepspeed.zero_optimization"
    settings = OmegaConf.to_container(OmegaConf.select(cfg, key) or OmegaConf.create(), resolve=True)
    with naming("hardware.deepspeed"):
        from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    try:
        DeepSpeedZeroConfig(**{name: value for name, value in settings.items() if value != "auto"})
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        raise UserError(f"{key}.{name}={problem['input']}: {problem['msg']}") from error


def check_training(cfg, model) -> None:
    """Raises UserError if the trainer's class, its arguments, the optimizer or the learning rate's schedule cannot be made."""
    import torch
    from hydra.utils import instantiate
    from transformers import Trainer, get_scheduler

    from cso_lab.training.arguments import batches, trainer_arguments
    from cso_lab.training.processes import in_processes

    with naming("algorithm.trainer"):
        instantiate(cfg.algorithm.trainer, _partial_=True)
    if cfg.hardware.deepspeed is not None:
        check_deepspeed(cfg)
    at_once, accumulation = batches(cfg)
    alone = cfg.copy()
    # DeepSpeed and groups of processes take hold of the whole process, so that is left to the training's own.
    alone.hardware.deepspeed, alone.hardware.processes = None, 1
    if in_processes(cfg):
        alone.hardware.device = "cpu"
    with naming("algorithm.arguments"):
        arguments = trainer_arguments(alone, at_once, accumulation, Path("steps"))
    with naming("training.optim", cfg.training.optim):
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        optimizer = kind([torch.nn.Parameter(torch.zeros(1))], **{k: v for k, v in settings.items() if k != "params"})
    with naming("training.lr_scheduler_type", cfg.training.lr_scheduler_type):
        get_scheduler(
            arguments.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=0,
            num_training_steps=1,
            scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
        )
