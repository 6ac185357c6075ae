"""Checks before the first stage, so that no run fails after a paid search for a reason that was known before it.

They check that the configured GPUs exist, that the weights are available, that libraries accept the settings passed to them, that a
training fits its device's memory, and that the disks have room. They download no weights. Each distinct check runs once a process.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.config.cells import is_decoupled, parts_of, rounds_of, start_of, starts_server, trains, weights_here
from cso_lab.config.result_settings import resolved
from cso_lab.core.errors import UserError
from cso_lab.core.hashing import digest
from cso_lab.evaluation.text_metrics import check_bertscore
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.dataset import Dataset
from cso_lab.pipeline.disk import Need, check_room
from cso_lab.pipeline.metadata import tracked_cell
from cso_lab.pipeline.plan import check_memory
from cso_lab.pipeline.search import Search
from cso_lab.pipeline.train import Train

# {check: its result}.
_results: dict[str, object] = {}


def preflight(cells: Iterable[tuple[DictConfig, Path, Iterable[str]]]) -> None:
    """Raises UserError if a stage of a cell cannot work: cells are (configuration, run folder, stages still to do)."""
    needs: dict[str, Need] = {}
    for cfg, folder, stages in cells:
        replies = bool({"generate", "converse"} & set(stages)) and cfg.conversation.reference is None
        train, generate = "train" in stages, replies and weights_here(cfg)
        if "evaluate" in stages and "bertscore" in cfg.evaluation.text:
            check_bertscore(cfg.evaluation.bertscore.model, cfg.evaluation.bertscore.layers)
        if generate and starts_server(cfg):
            _check_server(cfg)
        if train or generate:
            _check_hardware(cfg)
            needs = _check_model(cfg, folder, train) | needs
        if generate and starts_server(cfg) and trains(cfg) and cfg.finetune_mode.peft is not None:
            needs[f"served {folder}"] = _merged(cfg, folder)
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


def _once(kind: str, values: object, check: Callable[[], object]) -> object:
    """Returns the result of `check`, which is called once for equal `values`."""
    key = f"{kind} {digest(values)}"
    if key not in _results:
        _results[key] = check()
    return _results[key]


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


def _check_server(cfg: DictConfig) -> None:
    from cso_lab.llm.own_server import check_server

    _once("server", _values(cfg, "serving"), lambda: check_server(_values(cfg, "serving")))


def _merged(cfg: DictConfig, folder: Path) -> Need:
    """Returns the room for a copy of the backbone into which the adapter is merged, for as long as a server serves it."""
    from cso_lab.training.machine import resolve_auto

    size = 2 if resolve_auto(cfg).generation.dtype == "bfloat16" else 4
    size *= sum(weight.numel() for weight in _meta_model(cfg).parameters())
    return Need("the merged model", folder, 0, temporary=size, max_temporary=size)


def _meta_model(cfg: DictConfig):
    from cso_lab.pipeline.dry_build import meta_model
    from cso_lab.training.backbone import prepare_backbone

    values = [_values(cfg, "backbone"), str(cfg.shared_dir)]
    return _once("model", values, lambda: meta_model(cfg, prepare_backbone(cfg)))


def _check_model(cfg: DictConfig, folder: Path, train: bool) -> dict[str, Need]:
    """Returns {key: the space that the cell's files need}; files that several cells share have the same key.

    Raises UserError if the model is not available or cannot be trained as configured.
    """
    from cso_lab.pipeline.dry_build import adapter_parameters, check_training
    from cso_lab.pipeline.weights import find_weights
    from cso_lab.training.backbone import load_tokenizer, quiet_libraries
    from cso_lab.training.quantization import check_quantization

    check_quantization(cfg)
    quiet_libraries()
    backbone = [_values(cfg, "backbone"), str(cfg.shared_dir)]
    path, needs = cfg.backbone.path, {}
    # The checkpoint of a full training replaces the backbone.
    loaded = train or not trains(cfg) or cfg.finetune_mode.peft is not None
    if loaded and path is not None and (missing := _once("weights", str(path), lambda: find_weights(str(path)))):
        needs = {f"weights {path}": Need(f"the weights of {path}", _hub_cache(), missing)}
    _once("tokenizer", backbone, lambda: bool(load_tokenizer(cfg)))
    if not loaded:
        return needs
    model = _meta_model(cfg)
    if not train:
        return needs
    values = [_values(cfg, node) for node in ("finetune_mode", "algorithm", "training", "hardware")]
    trained = _once("adapter", [backbone, values[0]], lambda: adapter_parameters(cfg, model))
    _once("training", [backbone, values], lambda: bool(check_training(cfg, model)))
    parameters = sum(weight.numel() for weight in model.parameters())
    _once("memory", [_training(cfg), values], lambda: bool(check_memory(CellContext(cfg, folder), parameters, trained)))
    return needs | _checkpoints(cfg, folder, trained)


def _checkpoints(cfg: DictConfig, folder: Path, trained: int) -> dict[str, Need]:
    """Returns {key: the space that a training of `trained` parameters needs}; everything is written as float32.

    At its end it holds the checkpoint and at least one saved step, which includes AdamW's two moments. While a step is written, two
    older ones are kept. A training that starts from SFT also keeps the SFT model.
    """
    model, step = 4 * trained, (12 if cfg.training.optim in ("adamw_torch", "adamw_torch_fused") else 4) * trained
    one = 0 < cfg.training.max_steps <= cfg.training.save_steps
    final = 0 if (folder / "checkpoint").exists() else model * (len(parts_of(cfg)) if is_decoupled(cfg) else 1)
    training = _training(cfg)
    needs = {
        f"checkpoint {training}": Need("checkpoints", folder, final, temporary=step, max_temporary=step if one else 3 * step)
    }
    if start_of(cfg) is not None or rounds_of(cfg) > 1:
        needs[f"start {training}"] = Need("the model to start from", Path(cfg.shared_dir), model)
    return needs


def _training(cfg: DictConfig) -> str:
    """Returns the identity of the cell's training; cells that differ only in later stages share one."""
    return digest([stage.settings(resolved(cfg)) for stage in (Search, Dataset, Train)])


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
