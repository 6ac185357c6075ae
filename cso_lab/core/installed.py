"""Versions of installed packages."""

from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version


@cache
def installed_version(module: str) -> str:
    """Returns name and version of the distribution that a top-level module belongs to, such as "torch 2.8.0", or "not installed"."""
    try:
        return f"{module} {version(module)}"
    except PackageNotFoundError:  # the distribution has another name than the module
        names = sorted(set(packages_distributions().get(module, ())))
        return ", ".join(f"{name} {version(name)}" for name in names) or "not installed"
