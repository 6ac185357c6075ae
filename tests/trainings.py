"""Small trainings for tests: configurations of tiny random models."""

from pathlib import Path

from hydra import compose, initialize_config_dir

from cso_lab.naming import register_resolvers

CONF = Path(__file__).parents[1] / "conf"


def config(shared, *overrides):
    """A configuration of two steps of a tiny model; converted weights and the like go below the folder `shared`."""
    register_resolvers()
    fixed = ["backbone=tiny_llama", f"shared_dir={shared}", "hardware=cpu", "training.dtype=float32", "training.batch_size=4"]
    fixed += ["training.learning_rate=1e-3", "training.warmup_ratio=0", "training.max_steps=2"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[*fixed, *overrides])
