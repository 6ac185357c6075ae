"""What is made sure of before the first stage: nothing that a search pays for may be lost to what could have been known before it.

A GPU that is asked for is there, weights can be had, libraries accept what is passed through to them, the disk has room. Looking downloads
no weights. Each distinct thing is looked at once in a process.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.config.cells import start_of, trains
from cso_lab.config.result_settings import resolved
from cso_lab.core.errors import UserError
from cso_lab.core.hashing import digest
from cso_lab.pipeline.dataset import Dataset
from cso_lab.pipeline.disk import Need, check_room
from cso_lab.pipeline.metadata import tracked_cell
from cso_lab.pipeline.search import Search
from cso_lab.pipeline.train import Train

# What was found, by what was looked at.
_found: dict[str, object] = {}


def preflight(cells: Iterable[tuple[DictConfig, Path, Iterable[str]]]) -> None:
    """Raises UserError if a stage of a cell cannot work: cells are (configuration, run folder, stages still to do)."""
    needs: dict[str, Need] = {}
    for cfg, folder, stages in cells:
        replies = bool({"generate", "converse"} & set(stages)) and cfg.conversation.reference is None
        train, generate = "train" in stages, replies and cfg.generation.engine == "local"
        if train or generate:
            _check_hardware(cfg)
            needs = _check_model(cfg, folder, train) | needs
    check_room(needs.values())


def check_tracking(cfg: DictConfig, folder: Path) -> None:
    """Raises UserError if the tracker refuses its settings."""
    from cso_lab.tracking import tracker

    _once(
        "tracking",
        [_values(cfg, "tracking"), cfg.backbone.name, cfg.algorithm.name],
        lambda: bool(tracker(cfg.tracking, tracked_cell(cfg, folder))),
    )


def _values(cfg: DictConfig, node: str) -> object:
    return OmegaConf.to_container(cfg[node], resolve=True)


def _once(what: str, values: object, look: Callable[[], object]) -> object:
    key = f"{what} {digest(values)}"
    if key not in _found:
        _found[key] = look()
    return _found[key]


def _check_hardware(cfg: DictConfig) -> None:
    import torch

    from cso_lab.training.backbone import device

    hardware = cfg.hardware
    a_node = hardware.processes // hardware.nodes
    if device(cfg) == "cuda" and a_node > torch.cuda.device_count():
        raise UserError(
            f"hardware.processes={hardware.processes} on hardware.nodes={hardware.nodes}: each process takes a GPU of its own,"
            f" and {torch.cuda.device_count()} are visible here"
        )
    if hardware.launcher and shutil.which(hardware.launcher[0]) is None:
        raise UserError(f"hardware.launcher: there is no command {hardware.launcher[0]!r} here")


def _check_model(cfg: DictConfig, folder: Path, train: bool) -> dict[str, Need]:
    """Raises UserError if the cell's model cannot be had or trained as configured; returns what will be written.

    What is written once for several cells goes by the same name.
    """
    from cso_lab.pipeline.dry_build import adapter_parameters, check_training, meta_model
    from cso_lab.pipeline.weights import find_weights
    from cso_lab.training.backbone import load_tokenizer, prepare_backbone, quiet_libraries

    quiet_libraries()
    backbone = [_values(cfg, "backbone"), str(cfg.shared_dir)]
    path, needs = cfg.backbone.path, {}
    # The checkpoint of a full training is a model of its own.
    loaded = train or not trains(cfg) or cfg.finetune_mode.peft is not None
    if loaded and path is not None and (missing := _once("weights", str(path), lambda: find_weights(str(path)))):
        needs = {f"weights {path}": Need(f"the weights of {path}", _hub_cache(), missing)}
    _once("tokenizer", backbone, lambda: bool(load_tokenizer(cfg)))
    if not loaded:
        return needs
    model = _once("model", backbone, lambda: meta_model(cfg, prepare_backbone(cfg)))
    if not train:
        return needs
    values = [_values(cfg, node) for node in ("finetune_mode", "algorithm", "training", "hardware")]
    trained = _once("adapter", [backbone, values[0]], lambda: adapter_parameters(cfg, model))
    _once("training", [backbone, values], lambda: bool(check_training(cfg, model)))
    return needs | _checkpoints(cfg, folder, trained)


def _checkpoints(cfg: DictConfig, folder: Path, trained: int) -> dict[str, Need]:
    """What a training of so many parameters writes, all of it float32.

    At its end that is the checkpoint, beside at least one saved step, which also holds AdamW's two moments. Two steps are kept while a
    third is written. A training that starts from SFT keeps that model too.
    """
    model, step = 4 * trained, (12 if cfg.training.optim in ("adamw_torch", "adamw_torch_fused") else 4) * trained
    one = 0 < cfg.training.max_steps <= cfg.training.save_steps
    kept = 0 if (folder / "checkpoint").exists() else model
    # Cells that differ in nothing but what comes after the training share one.
    training = digest([stage.settings(resolved(cfg)) for stage in (Search, Dataset, Train)])
    needs = {f"checkpoint {training}": Need("checkpoints", folder, kept, passing=step, passing_most=step if one else 3 * step)}
    if start_of(cfg) is not None:
        needs[f"start {training}"] = Need("the model to start from", Path(cfg.shared_dir), model)
    return needs


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
