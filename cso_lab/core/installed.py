"""Versions of installed packages."""

from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version


@cache
def distributions(package: str) -> tuple[str, ...]:
    """Returns the names of the distributions that a top-level package belongs to, sorted; empty if nothing installed has it."""
    return tuple(sorted(set(_all_distributions().get(package, ()))))


# It reads the list of files of every installed distribution, which takes a good part of a second.
_all_distributions = cache(packages_distributions)


@cache
def installed_version(module: str) -> str:
    """Returns name and version of the distribution that a top-level module belongs to, such as "torch 2.8.0", or "not installed"."""
    try:
        return f"{module} {version(module)}"
    except PackageNotFoundError:  # the distribution has another name than the module
        return ", ".join(f"{name} {version(name)}" for name in distributions(module)) or "not installed"
