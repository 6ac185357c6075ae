"""The configuration as it is typed, before and while Hydra composes it."""
