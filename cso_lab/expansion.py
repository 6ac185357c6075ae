"""The search stage: dialogues -> trees. Gives the search its players, runs all dialogues at once, and keeps account."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cso_lab.dialogue import Dialogue
from cso_lab.errors import UserError
from cso_lab.files import read_json, write_json
from cso_lab.search.tree import Tree
from cso_lab.strategies import StrategySet

SUMMARY = "search.json"


def tree_files(folder: Path) -> list[Path]:
    """The finished trees of a search folder, in the order of their dialogues' ids."""
    return sorted((Path(folder) / "trees").glob("*.json"))


def load_trees(folder: Path) -> list[Tree]:
    return [Tree.from_json(read_json(path)) for path in tree_files(folder)]


def expand(
    dialogues: Sequence[Dialogue],
    *,
    mcts: Mapping,
    roles: Mapping,
    strategies: StrategySet,
    folder: Path,
    account: Mapping,
    theta: float,
    min_end_visits: int,
) -> dict:
    """Grow every dialogue that has no tree in `folder` yet; returns what is also left in search.json.

    A dialogue whose questions stay unanswered is set aside with its reason while the others go on; the next call takes it up again.
    `account` (what was read and rejected) goes into search.json as it is.
    """
    from hydra.utils import instantiate

    from cso_lab.roles.cast import Cast
    from cso_lab.roles.client import Client

    limits = ("max_concurrency", "timeout", "attempts", "api_base", "api_key_env")
    client = Client(**{key: roles[key] for key in limits})
    cast = Cast(roles, client, strategies, mcts["seed"])
    reward = instantiate(mcts["reward"])
    search = instantiate(mcts["search"], _partial_=True)(roles=cast, reward=reward, strategies=strategies)

    waiting = [dialogue for dialogue in dialogues if not _tree_file(folder, dialogue).exists()]
    began = time.perf_counter()

    async def grow(dialogue: Dialogue, progress: Callable[[int], None]) -> None:
        tree = await search.search(dialogue, lambda tree, iteration: progress(iteration))
        if mcts["extend_negatives"]:
            await search.extend(dialogue, tree, theta, min_end_visits)
        write_json(_tree_file(folder, dialogue), tree.to_json())
        cast.forget(dialogue)

    set_aside = asyncio.run(_grow_all(waiting, grow, client, mcts["max_iterations"])) if waiting else {}
    trees = load_trees(folder)
    if dialogues and not trees:
        name, reason = next(iter(set_aside.items()))
        raise UserError(f"no dialogue could be searched; {name}: {reason}")
    summary = {
        "players": roles["name"],
        "notice": roles["notice"],
        "dialogues": len(dialogues),
        "trees": len(trees),
        "set_aside": set_aside,
        "iterations_at_most": mcts["max_iterations"],
        "usage": client.usage.to_json(),
        "seconds": round(time.perf_counter() - began, 1),
        "agreement_with_gold": agreement(trees),
        "corpus": account,
    }
    write_json(folder / SUMMARY, summary)
    return summary


def agreement(trees: Sequence[Tree]) -> dict:
    """How often the strategist's best-scored strategy at a gold turn is the gold one: {"turns", "agree", "share"}."""
    gold = [node for tree in trees for node in tree.nodes if node.gold and node.parent]
    agree = sum(node is max(node.parent.children, key=lambda child: child.prior) for node in gold)
    return {"turns": len(gold), "agree": agree, "share": round(agree / len(gold), 4) if gold else None}


def _tree_file(folder: Path, dialogue: Dialogue) -> Path:
    return Path(folder) / "trees" / f"{dialogue.id}.json"


async def _grow_all(dialogues: Sequence[Dialogue], grow, client, max_iterations: int) -> dict[str, str]:
    """Run `grow` on all dialogues at once under a progress bar; {id: reason} of those that were set aside."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from cso_lab.roles.client import RoleFailure

    set_aside = {}
    columns = (
        TextColumn("search"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("iterations, {task.fields[done]} dialogues, {task.fields[calls]} calls"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("search", total=len(dialogues) * max_iterations, done=0, calls=0)
        iterations, done = dict.fromkeys((dialogue.id for dialogue in dialogues), 0), 0

        def show() -> None:
            bar.update(task, completed=sum(iterations.values()), done=done, calls=client.usage.calls.total())

        async def one(dialogue: Dialogue) -> None:
            nonlocal done

            def progress(iteration: int) -> None:
                iterations[dialogue.id] = iteration
                show()

            try:
                await grow(dialogue, progress)
            except RoleFailure as failure:
                set_aside[dialogue.id] = str(failure)
            iterations[dialogue.id] = max_iterations
            done += 1
            show()

        async with asyncio.TaskGroup() as group:
            for dialogue in dialogues:
                group.create_task(one(dialogue))
    return set_aside
