"""Versions of installed packages."""

from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version


@cache
def installed_version(module: str) -> str:
    """Name and version of the distribution that an installed top-level module or package belongs to."""
    try:
        return f"{module} {version(module)}"
    except PackageNotFoundError:  # the distribution has another name
        names = sorted(set(packages_distributions().get(module, ())))
        return ", ".join(f"{name} {version(name)}" for name in names) or "not installed"
