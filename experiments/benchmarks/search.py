"""How fast the search is: python -m experiments.benchmarks.search [--parts a,b,c,d] [--json]

a  96 dialogues, 3 iterations, 32 calls at once: wall time over the floor (calls without speculation x latency / calls at once)
b  one dialogue, 50 iterations, memory on: speed against one call after another, and whether the trees are the same
c  without latency: calls a second, CPU and memory a call; memory with 1,000 dialogues open
d  memory on and off, simulated players with sampling: calls a pair, and how far the two find the same
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from experiments.benchmarks.loopback import server

CONF = Path(__file__).parents[2] / "conf"
ROLES = ("seeker", "supporter", "strategist", "judge")
AT_ONCE = 32


def iterations(number: int) -> list[str]:
    return [f"mcts.min_iterations={number}", f"mcts.max_iterations={number}"]


def served(address: str) -> list[str]:
    """Overrides that make the players the models of a loopback server."""
    return ["roles=server", f"roles.api_base={address}", *(f"roles.{role}.model=openai/{role}" for role in ROLES)]


def search(overrides: Sequence[str], number: int) -> dict:
    """Search `number` dialogues, in a process of its own, once everything is imported and set up: {seconds, calls, cpu (seconds),
    before and most (MiB of memory), trees (as JSON)}."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_search, list(overrides), number).result()


def _search(overrides: list[str], number: int) -> dict:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from cso_lab.corpora import load
    from cso_lab.expansion import expand, tree_files
    from cso_lab.naming import register_resolvers
    from cso_lab.strategies import strategy_set

    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides)
    # The sample corpus, again under other names where more dialogues are asked for than it has.
    corpus = load(cfg.data).dialogues
    dialogues = [_renamed(corpus[i % len(corpus)], f"{i:04d}") for i in range(number)]

    mcts = OmegaConf.to_container(cfg.mcts, resolve=True)

    def run(some: Sequence, mcts: dict, folder: str) -> dict:
        return expand(
            some,
            mcts=mcts,
            roles=cfg.roles,
            strategies=strategy_set(cfg.data.strategies),
            folder=Path(folder),
            account={},
            theta=cfg.preferences.theta,
            min_end_visits=cfg.preferences.min_end_visits,
        )

    with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as folder:
        run(dialogues[:1], mcts | {"search": mcts["search"] | {"min_iterations": 0, "max_iterations": 0}}, warm)
        before, cpu, began = _most_memory(), time.process_time(), time.perf_counter()
        summary = run(dialogues, mcts, folder)
        return {
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
            "before": before,
            "most": _most_memory(),
            "calls": sum(summary["usage"]["calls"].values()),
            "trees": [json.loads(path.read_text(encoding="utf-8")) for path in tree_files(Path(folder))],
        }


def _renamed(dialogue, id: str):
    from dataclasses import replace

    return replace(dialogue, id=id)


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# the parts


def many_dialogues(latency: float, dialogues: int = 96) -> dict:
    few = ["mcts=paper", *iterations(3), f"roles.max_concurrency={AT_ONCE}"]
    with server(0, thinking=True) as address:
        calls = search([*served(address), *few, "mcts.speculation=0"], dialogues)["calls"]
    with server(latency, thinking=True) as address:
        ours = search([*served(address), *few], dialogues)
    floor = calls * latency / AT_ONCE
    return {
        "dialogues": dialogues,
        "calls without speculation": calls,
        "calls": ours["calls"],
        "floor, s": floor,
        "wall, s": ours["seconds"],
        "wall / floor": ours["seconds"] / floor,
    }


def one_dialogue(latency: float, count: int = 50) -> dict:
    # no more than `count` ends would stop it earlier than by iterations
    settings = ["mcts=paper", "mcts.memory=true", *iterations(count), f"mcts.max_ends={count + 2}"]
    with server(latency, thinking=True) as address:
        after_another = search([*served(address), *settings, "mcts.speculation=0", "roles.max_concurrency=1"], 1)
        not_ahead = search([*served(address), *settings, "mcts.speculation=0", f"roles.max_concurrency={AT_ONCE}"], 1)
        ahead = search([*served(address), *settings, f"roles.max_concurrency={AT_ONCE}"], 1)
    return {
        "one after another, s": after_another["seconds"],
        "at once but not ahead, s": not_ahead["seconds"],
        "ahead, s": ahead["seconds"],
        "speedup": after_another["seconds"] / ahead["seconds"],
        "same tree": after_another["trees"] == not_ahead["trees"] == ahead["trees"],
        "calls": after_another["calls"],
        "calls ahead": ahead["calls"],
    }


def own_cost(dialogues: int = 60, opened: int = 1000) -> dict:
    with server(0, thinking=False) as address:
        settings = [*served(address), "mcts=paper", f"roles.max_concurrency={AT_ONCE}"]
        busy = search([*settings, *iterations(3)], dialogues)
        crowd = search([*settings, *iterations(1)], opened)
    return {
        "calls": busy["calls"],
        "calls a second": busy["calls"] / busy["seconds"],
        "CPU a call, ms": 1000 * busy["cpu"] / busy["calls"],
        "memory a call, KiB": 1024 * (busy["most"] - busy["before"]) / busy["calls"],
        "dialogues open": opened,
        "calls a second then": crowd["calls"] / crowd["seconds"],
        "memory then, MiB": crowd["most"],
    }


def memory_on_and_off(dialogues: int = 12, count: int = 50) -> dict:
    settings = ["roles=simulated", "mcts=paper", "mcts.speculation=0", *iterations(count)]
    on, off, again = (
        search([*settings, *more], dialogues)
        for more in (["mcts.memory=true"], ["mcts.memory=false"], ["mcts.memory=false", "mcts.seed=1"])
    )
    found = [_found(run["trees"]) for run in (on, off, again)]
    result = {"dialogues": dialogues, "iterations": count}
    for name, run, (_, _, pairs) in zip(("on", "off", "off, other seed"), (on, off, again), found, strict=True):
        result |= {f"{name}: calls": run["calls"], f"{name}: distinct pairs": pairs}
        result[f"{name}: calls a pair"] = run["calls"] / max(pairs, 1)
    for name, i, j in (("on and off", 0, 1), ("off and off, other seed", 1, 2)):
        result[f"{name}: strategies in common, %"] = 100 * _common(found[i][0], found[j][0])
        result[f"{name}: places in common, %"] = 100 * _common(found[i][1], found[j][1])
    return result


def _found(trees: list[dict]) -> tuple[Counter, Counter, int]:
    """Of the turns on valid paths that are not gold: how often each strategy, and which places in which tree; and of all distinct
    pairs how many."""
    from cso_lab.preferences.escpro import EscPro
    from cso_lab.preferences.rows import pair_rows
    from cso_lab.search.tree import Tree
    from cso_lab.strategies import EXTES

    paths = EscPro(theta=0.5, min_end_visits=2)(map(Tree.from_json, trees))
    turns = {(path.dialogue, choice.preferred.place): choice.preferred for path in paths for choice in path.choices}
    found = {place: node for place, node in turns.items() if not node.gold}
    return Counter(node.strategy for node in found.values()), Counter(list(found)), len(pair_rows(paths, EXTES))


def _common(one: Counter, other: Counter) -> float:
    """The share that two distributions have in common, 0 to 1."""
    if not one or not other:
        return 0.0
    return sum(min(one[key] / one.total(), other[key] / other.total()) for key in one)


PARTS = {"a": many_dialogues, "b": one_dialogue, "c": own_cost, "d": memory_on_and_off}


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="which, separated by commas")
    parser.add_argument("--latency", type=float, default=0.4, help="seconds a call takes in parts a and b")
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts.split(",")) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; valid: {', '.join(PARTS)}")
    results = {}
    for part in options.parts.split(","):
        limits = {"latency": options.latency} if part in "ab" else {}
        results[part] = PARTS[part](**limits)
        _show(part, results[part])
    if options.json:
        print(json.dumps({"latency": options.latency, "at_once": AT_ONCE, **results}))


def _show(part: str, result: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    description = next(line for line in __doc__.splitlines() if line.startswith(f"{part}  "))
    table = Table("", "", title=description, title_justify="left", show_header=False)
    for name, value in result.items():
        table.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
