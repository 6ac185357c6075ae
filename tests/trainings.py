"""Small trainings for tests: configurations of tiny random models."""

from project import composed


def config(shared, *overrides):
    """A configuration of two steps of a tiny model; converted weights and the like go below the folder `shared`."""
    fixed = ["backbone=tiny_llama", f"shared_dir={shared}", "hardware=cpu", "training.dtype=float32", "training.batch_size=4"]
    fixed += ["training.learning_rate=1e-3", "training.warmup_ratio=0", "training.max_steps=2"]
    return composed(*fixed, *overrides)
