"""The tables of the benchmark on GPUs."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.parts import PARTS

_COLUMNS = (
    "",
    "rows/s: TRL",
    "at once",
    "rows/s: shared",
    "speedup",
    "tokens: TRL's over ours",
    "peak GiB: ours, TRL's",
    "compiled: at first, later",
)


def show(model: str, dtype: str, result: dict) -> None:
    """Prints what `gpu.Benchmark.run` returned for a model."""
    console = Console(width=140)
    console.print(_speed(model, dtype, result["algos"]), _sameness(dtype, result["algos"]))
    for algo, outcome in result["algos"].items():
        if any("parts" in outcome[side] for side in ("ours", "trl")):
            console.print(_parts(algo, outcome))
    for algo, outcome in result["algos"].items():
        for name, found in _contenders(outcome):
            if "failed" in found:
                console.print(f"{algo}, {name}: {found['failed']}")
    for name in ("steady", "generation"):
        if result[name]:
            console.print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in result[name].items()))


def _contenders(outcome: dict) -> Iterator[tuple[str, dict]]:
    """What was found of each contender of an algorithm, with its name."""
    for side in ("exactness", "agreement", "ours", "trl", "trl_flash"):
        if side in outcome:
            yield side, outcome[side]
            yield from ((f"{side}, {size} at once", found) for size, found in outcome[side].get("tried", {}).items())


def _speed(model: str, dtype: str, algos: dict) -> Table:
    table = Table(*_COLUMNS, title=f"{model}, {dtype}", title_justify="left")
    for algo, outcome in algos.items():
        ours, stock = outcome["ours"], outcome[outcome.get("against", "trl")]
        exact = outcome["exactness"]["exact"]
        table.add_row(
            algo,
            _rate(stock),
            f"{stock.get('at_once', '–')}{', FlashAttention-2' if outcome.get('against') == 'trl_flash' else ''}",
            _rate(ours),
            "[bold red]refused[/]" if not exact else _number(outcome["speedup"]),
            _number(outcome.get("token_ratio")),
            f"{_number(ours.get('gib'))}, {_number(stock.get('gib'))}",
            f"{_compiled(ours, 'compiled_at_first')}, {_compiled(ours, 'compiled_later')}",
        )
    return table


def _sameness(dtype: str, algos: dict) -> Table:
    columns = ("", "float32, 2 layers: loss", "gradient", f"{dtype}: loss", "TRL's loss", "cosine of gradients")
    table = Table(*columns, title="Differences, relative", title_justify="left")
    for algo, outcome in algos.items():
        exact, found = outcome["exactness"], outcome["agreement"]
        table.add_row(
            algo,
            *(exact.get("failed") or f"{exact[name]:.1e}" for name in ("loss_rel_diff", "grad_rel_diff")),
            *(found.get("failed") or f"{found[name]:.6f}" for name in ("loss", "trl_loss", "gradient_cosine")),
        )
    return table


def _parts(algo: str, outcome: dict) -> Table:
    table = Table("ms a row", *PARTS, title=f"{algo}, time by part", title_justify="left")
    for side in ("trl", "ours"):
        found = outcome[side]
        if "parts" in found:
            table.add_row(side, *(f"{1000 * found['parts'][part] / found['rows']:.2f}" for part in PARTS))
    return table


def _rate(outcome: dict) -> str:
    return outcome.get("failed") or f"{outcome['rows_per_second']:.3f}"


def _compiled(outcome: dict, when: str) -> str:
    return str(outcome[when]["compilations"]) if when in outcome else "–"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
