"""What the model of a cell is called: by its backbone's label, or by its path where another model was loaded under the backbone's name."""

import re
from pathlib import PurePath

from omegaconf import DictConfig, OmegaConf

from cso_lab.config import CONF
from cso_lab.config.cells import Config, is_api


def other_path(cfg: Config) -> str | None:
    """Returns `backbone.path` (of an API model, `.model`) where it is not the one the backbone's own YAML names, so that another model goes
    by its name; else None."""
    default, key = _own_file(cfg), "model" if is_api(cfg) else "path"
    if default is None or key not in default or OmegaConf.is_missing(default, key) or default[key] == cfg["backbone"].get(key):
        return None
    return str(cfg["backbone"].get(key))


def model_label(cfg: Config) -> str:
    """Returns the name that reports and cards give the model: the backbone's label; where another path was given, that path, unless
    `backbone.label` was given with it."""
    path, label = other_path(cfg), str(cfg["backbone"]["label"])
    return path if path and label == _own_file(cfg)["label"] else label


def model_slug(cfg: Config) -> str:
    """Returns the name of the model in names of folders and as a tag: the backbone's; of another path the last part."""
    name = re.sub(r"[^\w.-]+", "_", PurePath(other_path(cfg) or "").name).strip("._-")
    return name or cfg["backbone"]["name"]


def _own_file(cfg: Config) -> DictConfig | None:
    """Returns the backbone's own YAML; None for a backbone that has none here."""
    file = CONF / "backbone" / f"{cfg['backbone']['name']}.yaml"
    return OmegaConf.load(file) if file.is_file() else None
