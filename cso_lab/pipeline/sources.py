"""Identities of the code outside this package that a configuration names by `_target_`: a user's own reward, builder, trainer, ...

An installed library (TRL, PEFT, ...) counts by its version, since its files do not change without it. Any other code counts by its source:
the file of the object and, of the folder that its package or module lies in, every file that it imports, directly or not. So a helper
module beside it counts, and what it takes from installed libraries or from cso_lab does not. Imports are read from the source, also those
within functions, and nothing is imported for it. Files that are not Python's, and modules whose names are put together while the code
runs, are not seen: with a change there, give the object another name.
"""

import ast
import hashlib
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from cso_lab.core.installed import installed_version

_OWN = __name__.partition(".")[0]
# Their `path` names an object as `_target_` does.
_BY_PATH = "hydra.utils.get_"


def sources(value: object) -> dict[str, str]:
    """Returns {name: identity of its code} for the objects outside this package that `value`, part of a configuration, names."""
    return {target: _code(target) for target in sorted(set(_targets(value))) if target.partition(".")[0] != _OWN}


def _targets(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        target = value.get("_target_")
        if isinstance(target, str):
            yield target
            if target.startswith(_BY_PATH) and isinstance(value.get("path"), str):
                yield value["path"]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from _targets(child)


def _code(target: str) -> str:
    top = target.partition(".")[0]
    if top in sys.stdlib_module_names:
        return "Python {}.{}".format(*sys.version_info)
    origin = _origin(top)
    if origin is None:
        return "not found"
    if any(origin.is_relative_to(folder) for folder in _installed()):
        return installed_version(top)
    sha = hashlib.sha256()
    for file in sorted(_with_imports(origin.parent, target)) or [origin]:
        sha.update(f"{file.relative_to(origin.parent).as_posix()}\0".encode())
        sha.update(file.read_bytes())
    return sha.hexdigest()[:12]


def _origin(top: str) -> Path | None:
    """Returns the folder of a top-level package, or the file of a top-level module; None if there is none."""
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ()) or ([spec.origin] if spec.has_location else [])
    return Path(places[0]).resolve() if places else None


@cache
def _installed() -> tuple[Path, ...]:
    folders = [
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        *site.getsitepackages(),
        site.getusersitepackages(),
    ]
    return tuple(Path(folder).resolve() for folder in folders)


def _with_imports(root: Path, target: str) -> set[Path]:
    """Returns the files below `root` of the module that holds `target`, of the packages it lies in, and of all they import."""
    queue, files = _files(root, target), set()
    while queue:
        file = queue.pop()
        if file not in files:
            files.add(file)
            for name in _imports(root, file):
                queue += _files(root, name)
    return files


def _files(root: Path, name: str) -> list[Path]:
    """Returns the files of the packages (`__init__.py`) and the module below `root` that a dotted name leads through."""
    parts, files = name.split("."), []
    if parts[0] == _OWN:
        return files
    for end in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:end])
        if (place / "__init__.py").is_file():
            files.append(place / "__init__.py")
        elif place.with_suffix(".py").is_file():
            return [*files, place.with_suffix(".py")]
        elif not place.is_dir():
            return files
    return files


def _imports(root: Path, file: Path) -> Iterator[str]:
    """Yields the absolute names of the modules that a file imports, and of what it takes from them, which may be modules too."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    package = file.relative_to(root).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: max(0, len(package) - node.level + 1)] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{name.name}".lstrip(".") for name in node.names)
