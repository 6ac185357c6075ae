"""The composed configuration: its schema, the properties of its cell, the settings results depend on, sweeps, errors and help."""

from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"
"""The folder of the choices a user makes."""
