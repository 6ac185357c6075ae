"""The search stage: dialogues -> trees. Gives the search its players, runs all dialogues at once, and keeps account."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cso_lab.config.clients import LIMITS
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json
from cso_lab.core.records import Dialogue
from cso_lab.core.strategies import StrategySet
from cso_lab.expansion.configured_search import Plan
from cso_lab.search.tree import Tree

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
    watch: Callable[[dict[str, float]], None] | None = None,
) -> dict:
    """Grow every dialogue that has no tree in `folder` yet; returns what is also left in search.json.

    A dialogue whose questions stay unanswered is set aside with its reason while the others go on; the next call takes it up again. A
    server that answers nobody, or an account that nobody can be asked with, stops the search: ServiceError. A BudgetSpent says what is
    finished and what the rest would take. Whatever stops it, the next call goes on: no call that the journal in
    `folder` holds is made again. `account` (what was read and rejected) goes into search.json as it is. `watch` is told
    the live numbers every few seconds, see `Live.numbers`.
    """
    from cso_lab.expansion.progress import Live
    from cso_lab.llm.budget import BudgetSpent
    from cso_lab.llm.client import Client
    from cso_lab.llm.errors import ServiceError
    from cso_lab.llm.journal import Journal

    plan = Plan(mcts=mcts, roles=roles, strategies=strategies, theta=theta, min_end_visits=min_end_visits)
    waiting = _without_tree(folder, dialogues)
    began = time.perf_counter()
    with Journal(folder, [dialogue.id for dialogue in waiting]) as journal:
        client = Client(**{key: roles[key] for key in LIMITS}, journal=journal)
        client.check(plan.models)
        expected = _remaining(plan, waiting, journal.kept)
        if waiting and plan.paid:
            print(f"search: {expected.line(roles)}")
        live = Live(len(dialogues), len(dialogues) - len(waiting), expected, client, watch)
        set_aside, stopped = {}, None

        def summary() -> dict:
            trees = load_trees(folder)
            return {
                "players": roles["name"],
                "notice": roles["notice"],
                "dialogues": len(dialogues),
                "trees": len(trees),
                "set_aside": set_aside,
                "stopped": stopped,
                "iterations_at_most": mcts["max_iterations"],
                "iterations": live.iterations,  # of this run, as the seconds
                "seconds": round(time.perf_counter() - began, 1),
                "estimate": expected.to_json(roles),
                "budget": dict(roles["budget"]),
                "usage": client.usage.to_json(),
                "agreement_with_gold": agreement(trees),
                "corpus": account,
            }

        try:
            asyncio.run(_grow_all(plan, waiting, folder, client, live, set_aside))
        except (BudgetSpent, ServiceError) as error:
            stopped = str(error)
            left = _without_tree(folder, waiting)
            write_json(folder / SUMMARY, summary())
            finished = f"{error}: {len(dialogues) - len(left)} of {len(dialogues)} dialogues are finished"
            if isinstance(error, ServiceError):
                raise ServiceError(f"{finished}, and every answer is kept; the same command goes on") from None
            rest = _remaining(plan, left, journal.kept)
            raise BudgetSpent(
                f"{finished}, and the rest would take {rest.line(roles)}; raise the cap, and the same command goes on"
            ) from None
        except KeyboardInterrupt:
            stopped = "interrupted"
            write_json(folder / SUMMARY, summary())
            raise
        done = summary()
        write_json(folder / SUMMARY, done)
    if dialogues and not done["trees"]:
        name, reason = next(iter(set_aside.items()))
        raise UserError(f"no dialogue could be searched; {name}: {reason}")
    return done


def estimate_rest(dialogues: Sequence[Dialogue], *, folder: Path, **settings) -> str:
    """What is left of a search would take, in a line; `settings` as for `expand`."""
    from cso_lab.llm.journal import Journal

    plan, waiting = Plan(**settings), _without_tree(folder, dialogues)
    journal = Journal(folder, [dialogue.id for dialogue in waiting])
    journal.read()
    line = _remaining(plan, waiting, journal.kept).line(plan.roles)
    return f"search of {len(waiting)} of {len(dialogues)} dialogues: {line}"


def _remaining(plan: Plan, dialogues: Sequence[Dialogue], kept: Mapping[str, int]):
    """The Estimate of what `dialogues` still take when so many answers of each are in the journal."""
    from cso_lab.expansion.estimate import estimate

    whole = estimate(plan, dialogues)
    calls, there = whole.calls.total(), sum(kept.get(dialogue.id, 0) for dialogue in dialogues)
    # Every iteration is gone through again, but those with answers in the journal take no time.
    return replace(whole.times(max(0.0, 1 - there / calls)), iterations=whole.iterations) if calls else whole


def _without_tree(folder: Path, dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    return [dialogue for dialogue in dialogues if not _tree_file(folder, dialogue).exists()]


def agreement(trees: Sequence[Tree]) -> dict:
    """How often the strategist's best-scored strategy at a gold turn is the gold one: {"turns", "agree", "share"}."""
    gold = [node for tree in trees for node in tree.nodes if node.gold and node.parent]
    agree = sum(node is max(node.parent.children, key=lambda child: child.prior) for node in gold)
    return {"turns": len(gold), "agree": agree, "share": round(agree / len(gold), 4) if gold else None}


def _tree_file(folder: Path, dialogue: Dialogue) -> Path:
    return Path(folder) / "trees" / f"{dialogue.id}.json"


async def _grow_all(plan: Plan, dialogues: Sequence[Dialogue], folder: Path, client, live, set_aside: dict[str, str]) -> None:
    """Grow all dialogues at once; `set_aside` takes {id: reason} of those whose questions stay unanswered."""
    from cso_lab.core.task_group import gather
    from cso_lab.llm.errors import RoleFailure

    role_players = plan.role_players(client)
    search = plan.search(role_players)

    async def one(dialogue: Dialogue) -> None:
        try:
            tree = await plan.grow(search, dialogue, lambda iteration: live.iteration(dialogue.id, iteration))
            write_json(_tree_file(folder, dialogue), tree.to_json())
        except RoleFailure as failure:
            set_aside[dialogue.id] = str(failure)
        finally:
            role_players.forget(dialogue)
        live.finished(dialogue.id, set_aside)

    with live:
        async with client:
            await gather(one(dialogue) for dialogue in dialogues)
