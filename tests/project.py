"""The project as its users meet it: the configuration composed, and run.py as a process of its own."""

import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from cso_lab.naming import register_resolvers

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"


def composed(*overrides: str) -> DictConfig:
    """The configuration as `python run.py OVERRIDES` composes it."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def run_py(*arguments: str, timeout: float = 120, **settings) -> subprocess.CompletedProcess:
    """`python run.py ARGUMENTS` from the root of the project; `settings` go to subprocess.run."""
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, **settings)
