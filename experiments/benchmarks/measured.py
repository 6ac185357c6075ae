"""One search, or the client alone, in a process of its own and measured there."""

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"


def search(overrides: Sequence[str], number: int) -> dict:
    """Search `number` dialogues once everything is imported and set up: {seconds, calls, cpu (seconds), before and most (MiB of
    memory), trees (as JSON), choices, pairs}.

    `choices` are the turns on valid paths that are not gold, each once, as (dialogue, place, strategy); `pairs` is the number of
    distinct preference pairs."""
    return _alone(_search, list(overrides), number)


def client(address: str, provider: str, calls: int, at_once: int) -> float:
    """Calls a second of the client without a search, to a model that litellm knows under `provider`."""
    return _alone(_client, address, provider, calls, at_once)


def _alone(work: Callable, *arguments):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_quietly, work, *arguments).result()


def _quietly(work: Callable, *arguments):
    """What a search shows goes beside the figures, not among them."""
    with redirect_stdout(sys.stderr):
        return work(*arguments)


def _search(overrides: list[str], number: int) -> dict:
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from cso_lab.core.strategies import strategy_set
    from cso_lab.corpora import load
    from cso_lab.expansion.expand import expand, load_trees
    from cso_lab.pipeline.cell_names import register_resolvers
    from cso_lab.preferences.rows import pair_rows

    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides)
    # The sample corpus, again under other names where more dialogues are asked for than it has.
    corpus = load(cfg.data).dialogues
    dialogues = [replace(corpus[i % len(corpus)], id=f"{i:04d}") for i in range(number)]
    strategies = strategy_set(cfg.data.strategies)
    mcts = OmegaConf.to_container(cfg.mcts, resolve=True)

    def run(some: Sequence, mcts: dict, folder: str) -> dict:
        return expand(
            some,
            mcts=mcts,
            roles=cfg.roles,
            strategies=strategies,
            folder=Path(folder),
            corpus_report={},
            theta=cfg.preferences.theta,
            min_end_visits=cfg.preferences.min_end_visits,
        )

    with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as folder:
        run(dialogues[:1], mcts | {"search": mcts["search"] | {"min_iterations": 0, "max_iterations": 0}}, warm)
        before, cpu, began = _most_memory(), time.process_time(), time.perf_counter()
        summary = run(dialogues, mcts, folder)
        measured = {
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
            "before": before,
            "most": _most_memory(),
            "calls": sum(summary["usage"]["calls"].values()),
        }
        trees = load_trees(Path(folder))
    paths = instantiate(cfg.preferences.builder)(trees)
    preferred = ((path.dialogue, choice.preferred) for path in paths for choice in path.choices)
    return measured | {
        "trees": [json.dumps(tree.to_json()) for tree in trees],
        "choices": sorted({(dialogue, node.path_key, node.strategy) for dialogue, node in preferred if not node.gold}),
        "pairs": len(pair_rows(paths, strategies)),
    }


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _client(address: str, provider: str, calls: int, at_once: int) -> float:
    import asyncio

    from cso_lab.llm.client import Client, Question

    model = {"model": f"{provider}/supporter", "temperature": 0.7, "max_tokens": 100}
    chat = [{"role": "system", "content": "Be kind. " * 40}, {"role": "user", "content": "I lost my job last week. " * 40}]
    asking = Client(max_concurrency=at_once, timeout=60, max_attempts=2, api_base=address)

    async def ask(first: int, last: int) -> None:
        async with asyncio.TaskGroup() as group:
            for seed in range(first, last):
                group.create_task(asking.ask(Question(str(seed), "d", "supporter", model, chat, seed, str)))

    async def run() -> float:
        async with asking:
            await ask(0, at_once)  # imports, connections
            began = time.perf_counter()
            await ask(at_once, at_once + calls)
            return calls / (time.perf_counter() - began)

    return asyncio.run(run())
