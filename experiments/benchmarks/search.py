"""How fast the search is: python -m experiments.benchmarks.search [--parts a,b,c,d] [--json]

a  96 dialogues, 3 iterations, 32 calls at once: wall time over the floor (calls without speculation x latency / calls at once)
b  one dialogue, 50 iterations, memory on: speed against one call after another, and whether the trees are the same
c  without latency: calls a second, CPU and memory a call, the client alone and litellm's; memory with 1,000 dialogues open
d  memory on and off, simulated players with sampling: calls a pair, and how far the two find the same
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable

from experiments.benchmarks.loopback import server
from experiments.benchmarks.measured import client, search

ROLES = ("seeker", "supporter", "strategist", "judge")
AT_ONCE = 32


def iterations(number: int) -> list[str]:
    return [f"mcts.min_iterations={number}", f"mcts.max_iterations={number}"]


def served(address: str) -> list[str]:
    """Overrides that make the players the models of a loopback server."""
    # JSON is left to the prompt, so that every call is one of the search.
    unstructured = [f"roles.{role}.structured=none" for role in ("strategist", "judge")]
    return [
        "roles=server",
        *unstructured,
        f"roles.api_base={address}",
        *(f"roles.{role}.model=openai/{role}" for role in ROLES),
    ]


def many_dialogues(latency: float, dialogues: int = 96) -> dict:
    few = ["mcts=paper", *iterations(3), f"roles.max_concurrency={AT_ONCE}"]
    with server(0, thinking=True) as address:
        calls = search([*served(address), *few, "mcts.speculation=0"], dialogues)["calls"]
    with server(latency, thinking=True) as address:
        ours = search([*served(address), *few], dialogues)
    floor = calls * latency / AT_ONCE
    return {
        "dialogues": dialogues,
        "latency, s": latency,
        "calls without speculation": calls,
        "calls": ours["calls"],
        "floor, s": floor,
        "wall, s": ours["seconds"],
        "wall / floor": ours["seconds"] / floor,
    }


def one_dialogue(latency: float, count: int = 50) -> dict:
    # no more than `count` ends would stop it earlier than by iterations
    settings = ["mcts=paper", "mcts.cache_replies=true", *iterations(count), f"mcts.max_ends={count + 2}"]
    with server(latency, thinking=True) as address:
        after_another = search([*served(address), *settings, "mcts.speculation=0", "roles.max_concurrency=1"], 1)
        not_ahead = search([*served(address), *settings, "mcts.speculation=0", f"roles.max_concurrency={AT_ONCE}"], 1)
        ahead = search([*served(address), *settings, f"roles.max_concurrency={AT_ONCE}"], 1)
    return {
        "latency, s": latency,
        "one after another, s": after_another["seconds"],
        "at once but not ahead, s": not_ahead["seconds"],
        "ahead, s": ahead["seconds"],
        "speedup": after_another["seconds"] / ahead["seconds"],
        "same tree": after_another["trees"] == not_ahead["trees"] == ahead["trees"],
        "calls": after_another["calls"],
        "calls ahead": ahead["calls"],
    }


def own_cost(dialogues: int = 60, opened: int = 1000, asked: int = 3000) -> dict:
    with server(0, thinking=False) as address:
        settings = [*served(address), "mcts=paper", f"roles.max_concurrency={AT_ONCE}"]
        busy = search([*settings, *iterations(3)], dialogues)
        crowd = search([*settings, *iterations(1)], opened)
        # litellm serves this provider over the same protocol, through its own client
        alone, litellms = client(address, "openai", asked, AT_ONCE), client(address, "hosted_vllm", asked // 10, AT_ONCE)
    return {
        "calls": busy["calls"],
        "calls a second": busy["calls"] / busy["seconds"],
        "CPU a call, ms": 1000 * busy["cpu"] / busy["calls"],
        "memory a call, KiB": 1024 * (busy["most"] - busy["before"]) / busy["calls"],
        "dialogues open": opened,
        "calls then": crowd["calls"],
        "calls a second then": crowd["calls"] / crowd["seconds"],
        "memory then, MiB": crowd["most"],
        "client alone, calls a second": alone,
        "litellm's client, calls a second": litellms,
    }


def memory_on_and_off(dialogues: int = 12, count: int = 50) -> dict:
    settings = ["roles=simulated", "mcts=paper", *iterations(count)]
    runs = {
        "on": search([*settings, "mcts.cache_replies=true"], dialogues),
        "off": search([*settings, "mcts.cache_replies=false"], dialogues),
        # how much chance alone changes
        "off, other seed": search([*settings, "mcts.cache_replies=false", "mcts.seed=1"], dialogues),
    }
    result = {"dialogues": dialogues, "iterations": count}
    for name, run in runs.items():
        result |= {f"{name}: calls": run["calls"], f"{name}: distinct pairs": run["pairs"]}
        result[f"{name}: calls a pair"] = run["calls"] / max(run["pairs"], 1)
    for one, other in (("on", "off"), ("off", "off, other seed")):
        choices = runs[one]["choices"], runs[other]["choices"]
        strategies = (Counter(strategy for _, _, strategy in found) for found in choices)
        places = (Counter((dialogue, place) for dialogue, place, _ in found) for found in choices)
        result[f"{one} and {other}: strategies in common, %"] = 100 * common(*strategies)
        result[f"{one} and {other}: places in common, %"] = 100 * common(*places)
    return result


def common(one: Counter, other: Counter) -> float:
    """The share that two distributions have in common, 0 to 1."""
    if not one or not other:
        return 0.0
    return sum(min(one[key] / one.total(), other[key] / other.total()) for key in one)


PARTS = {"a": many_dialogues, "b": one_dialogue, "c": own_cost, "d": memory_on_and_off}


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="which, separated by commas")
    parser.add_argument("--latency", type=float, default=0.4, help="seconds a call takes in parts a and b")
    parser.add_argument("--json", action="store_true", help="print one line of JSON; the tables go to standard error")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts.split(",")) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; valid: {', '.join(PARTS)}")
    results = {}
    for part in options.parts.split(","):
        limits = {"latency": options.latency} if part in "ab" else {}
        results[part] = PARTS[part](**limits)
        _show(part, results[part], sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps({"at_once": AT_ONCE, **results}))


def _show(part: str, result: dict, file) -> None:
    from rich.console import Console
    from rich.table import Table

    description = next(line for line in __doc__.splitlines() if line.startswith(f"{part}  "))
    table = Table("", "", title=description, title_justify="left", show_header=False)
    for name, value in result.items():
        table.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value))
    Console(file=file).print(table)


if __name__ == "__main__":
    main()
