"""Packages import only those that stand before them in the pipeline's order, at every depth, functions included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cso_lab"
# Data flows down this list; a package may import those above it and no other.
ORDER = (
    *("core", "config", "corpora", "llm", "roles", "search", "expansion", "preferences", "training", "generation"),
    *("conversation", "evaluation", "analysis", "judging", "reporting", "export", "tracking", "chat", "pipeline"),
)
HEAVY = ("torch", "transformers", "trl", "litellm")


def imported_modules(file: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import statement in a file, wherever it stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def files(package: str) -> list[Path]:
    return sorted((PACKAGE / package).rglob("*.py"))


def test_every_package_has_its_place_in_the_order():
    packages = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
    assert packages == set(ORDER)


def test_no_module_stands_beside_the_packages():
    assert {file.name for file in PACKAGE.glob("*.py")} == {"__init__.py"}


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_what_stands_before_it(package):
    allowed = ORDER[: ORDER.index(package) + 1]
    upwards = [
        f"{file.relative_to(PACKAGE)}:{line} imports {module}"
        for file in files(package)
        for line, module in imported_modules(file)
        if module.startswith("cso_lab.") and module.split(".")[1] in ORDER and module.split(".")[1] not in allowed
    ]
    assert not upwards


@pytest.mark.parametrize("package", ORDER)
def test_modules_of_a_package_do_not_import_one_another_in_a_circle(package):
    graph = {}
    for file in files(package):
        module = "cso_lab." + ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        graph[module.removesuffix(".__init__")] = {name for _, name in imported_modules(file)}
    edges = {
        module: {other for other in graph if other != module and any(n == other or n.startswith(f"{other}.") for n in names)}
        for module, names in graph.items()
    }
    # A package's own __init__ may gather what its modules define.
    edges = {module: {other for other in others if not module.startswith(f"{other}.")} for module, others in edges.items()}
    assert not list(circles(edges))


def circles(edges: dict[str, set[str]]) -> Iterator[list[str]]:
    """Every circle that a depth-first search meets."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> Iterator[list[str]]:
        if module in path:
            yield [*path[path.index(module) :], module]
            return
        if module in done:
            return
        for other in sorted(edges[module]):
            yield from visit(other, [*path, module])
        done.add(module)

    for module in edges:
        yield from visit(module, [])


@pytest.mark.parametrize("package", ["core", "config", "search", "evaluation"])
def test_light_packages_never_import_a_heavy_library(package):
    heavy = [
        f"{file.relative_to(PACKAGE)}:{line} imports {module}"
        for file in files(package)
        for line, module in imported_modules(file)
        if module.split(".")[0] in HEAVY
    ]
    assert not heavy
