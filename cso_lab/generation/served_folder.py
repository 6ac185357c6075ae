"""The folder that a server is started on: weights, tokenizer and generation settings with which it replies as the model would here."""

import gc
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from cso_lab.generation.local import reply_ends
from cso_lab.llm.own_server import OwnServer, own_server
from cso_lab.training.backbone import check_whole, is_adapter, load_tokenizer, load_weights, prepare_backbone, resolve_dtype
from cso_lab.training.machine import resolve_auto

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

SERVER_LOG = "server.log"
_SERVED = "served"
# What a folder of weights holds beside the tokenizer and the generation settings, which the served folder has of its own.
_WEIGHT_FILES = ("config.json", "*.safetensors", "*.bin", "*.index.json")


@contextmanager
def serve_checkpoint(cfg: DictConfig, checkpoint: Path | None, run: Path) -> Iterator[OwnServer]:
    """Starts the server of `cfg.serving` on the checkpoint (None: the untrained backbone), and ends it at the end.

    Its log is in the run folder `run`. An adapter is merged into its backbone first; the merged weights are deleted at the end. Raises
    UserError if the model cannot be loaded or the server does not start.
    """
    cfg, folder = resolve_auto(cfg), (run / _SERVED).resolve()
    values = {"model": folder, "name": run.resolve().name, "dtype": cfg.generation.dtype, "device": cfg.hardware.device}
    try:
        _write_folder(cfg, checkpoint, folder)
        with own_server(OmegaConf.to_container(cfg.serving, resolve=True), values, run / SERVER_LOG) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_folder(cfg: DictConfig, checkpoint: Path | None, folder: Path) -> None:
    """Fills `folder`: weights that are whole are linked, an adapter is merged."""
    from transformers import AutoConfig

    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = load_tokenizer(cfg)
    if checkpoint is not None and is_adapter(checkpoint):
        model = load_weights(cfg, checkpoint, resolve_dtype(cfg.generation.dtype, cfg.hardware.device))
        model.save_pretrained(folder)
        settings = model.generation_config
        del model
        gc.collect()
    else:
        source = _whole_weights(cfg, checkpoint)
        folder.mkdir(parents=True)
        for file in {file for pattern in _WEIGHT_FILES for file in source.glob(pattern)}:
            (folder / file.name).symlink_to(file.resolve())
        settings = _settings_of(source, AutoConfig.from_pretrained(source))
    tokenizer.save_pretrained(folder)
    _generation_settings(settings, tokenizer, cfg.generation.temperature).save_pretrained(folder)


def _whole_weights(cfg: DictConfig, checkpoint: Path | None) -> Path:
    """Returns the folder of a full model, downloaded where it is the hub's."""
    if checkpoint is not None:
        check_whole(checkpoint)
        return checkpoint
    path = prepare_backbone(cfg)
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(path, allow_patterns=["*.json", "*.safetensors", "*.bin"]))


def _settings_of(source: Path, config) -> "GenerationConfig":
    """Returns the generation settings that a model loaded from `source` has."""
    from transformers import GenerationConfig

    if (source / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(source)
    return GenerationConfig.from_model_config(config)


def _generation_settings(
    settings: "GenerationConfig", tokenizer: "PreTrainedTokenizerBase", temperature: float | None
) -> "GenerationConfig":
    """Returns the settings with which a server ends and samples replies as this process does, whatever the model's own are.

    Servers take what a request does not say from the model's settings: a repetition penalty, a limit to the likeliest tokens, and whether
    anything is sampled at all. With a `temperature` of null these are wanted, and kept.
    """
    from transformers import GenerationConfig

    ends = list(reply_ends(settings, tokenizer))
    if temperature is not None:
        sampling = {"do_sample": True, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
        settings = GenerationConfig(bos_token_id=settings.bos_token_id, pad_token_id=tokenizer.pad_token_id, **sampling)
    settings.eos_token_id = ends
    return settings
