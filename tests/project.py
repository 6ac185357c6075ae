"""The project as users run it: the composed configuration, and run.py in a process of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path

import forking
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cso_lab.config.sweeps import plan
from cso_lab.pipeline.cell_names import register_resolvers

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"


def composed(*overrides: str) -> DictConfig:
    """Returns the configuration that `python run.py OVERRIDES` composes.

    Files are read once for each set of choices, which takes some twenty times as long as the rest; Hydra, too, sets plain values last.
    """
    values = [override for override in overrides if _is_plain_value(override)]
    cfg = deepcopy(_composed(tuple(override for override in overrides if override not in values)))
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(values), cfg)
    return cfg


def _is_plain_value(override: str) -> bool:
    """Returns whether an override sets one value of a key, and chooses no file, adds nothing, removes nothing and is no sweep."""
    key, separator, value = override.partition("=")
    plain = bool(separator) and re.fullmatch(r"[\w.]+", key) is not None and not (CONF / key).is_dir()
    return plain and not key.startswith("hydra.") and ("," not in value or value[0] in "[{")


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@cache
def _option(group: str, name: str) -> dict:
    node = {"algo": "algorithm", "mode": "finetune_mode"}.get(group, group)
    return OmegaConf.to_container(composed(f"{group}={name}")[node])


def option(group: str, name: str) -> DictConfig:
    """Returns the node that one option of a choice composes to, as in option("data", "extes")."""
    return OmegaConf.create(_option(group, name))


@contextmanager
def sweep_config(*overrides: str) -> Iterator[DictConfig]:
    """Yields the configuration of a sweep, with its `hydra` node; its jobs can be composed within the context."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().hydra.compose_config("config", list(overrides), run_mode=RunMode.MULTIRUN)


def jobs_of(*overrides: str) -> list[DictConfig]:
    """Returns the configuration of every job that `python run.py -m OVERRIDES` runs."""
    with sweep_config(*overrides) as config:
        return [job.config for job in plan(config)]


def without_hydra(job: DictConfig) -> DictConfig:
    """Returns a job's configuration as the job receives it, without the `hydra` node."""
    return OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"])


def run_py(*arguments: str, timeout: float = 120, **settings) -> subprocess.CompletedProcess:
    """Runs `python run.py ARGUMENTS` in the root of the project; `settings` are passed to Popen."""
    return forking.run([sys.executable, str(ROOT / "run.py"), *arguments], timeout, **{"cwd": ROOT, **settings})
