"""The composed configuration: its schema, what it says of a cell and of its results, sweeps, error messages and the help page."""

from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"
"""The folder of the choices a user makes."""
