"""Runs the configured search on all dialogues at once and writes trees/*.json and search.json."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cso_lab.config.clients import LIMITS
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json
from cso_lab.core.records import Dialogue
from cso_lab.core.strategies import StrategySet
from cso_lab.expansion.configured_search import ConfiguredSearch
from cso_lab.search.tree import Tree

if TYPE_CHECKING:
    from cso_lab.expansion.estimate import Estimate
    from cso_lab.expansion.progress_display import ProgressDisplay
    from cso_lab.llm.client import Client

SUMMARY = "search.json"


def tree_files(folder: Path) -> list[Path]:
    """Returns the files of the finished trees in a search folder, sorted by dialogue id."""
    return sorted((Path(folder) / "trees").glob("*.json"))


def load_trees(folder: Path) -> list[Tree]:
    """Returns the finished trees in a search folder, sorted by dialogue id."""
    return [Tree.from_json(read_json(path)) for path in tree_files(folder)]


def expand(
    dialogues: Sequence[Dialogue],
    *,
    mcts: Mapping,
    roles: Mapping,
    strategies: StrategySet,
    folder: Path,
    corpus_report: Mapping,
    theta: float,
    min_end_visits: int,
    log_metrics: Callable[[dict[str, float]], None] | None = None,
) -> dict:
    """Searches every dialogue that has no tree in `folder` yet, and returns the summary that is also written to search.json.

    `mcts` and `roles` are config nodes. `corpus_report` (the numbers of records read and rejected) is copied into the summary.
    `log_metrics` is called with `ProgressDisplay.metrics` every few seconds and at the end.

    A dialogue with a question that stays unanswered is set aside with the reason, and the next call tries it again. Raises ServiceError
    if the server is down or the account cannot be used, BudgetSpent if a cap is reached (with an estimate of what is left), and
    UserError if no dialogue has a tree in the end. After any of them the next call continues: replies in the journal in `folder` are
    not requested again.
    """
    from cso_lab.expansion.progress_display import ProgressDisplay
    from cso_lab.llm.budget import BudgetSpent
    from cso_lab.llm.client import Client
    from cso_lab.llm.errors import ServiceError
    from cso_lab.llm.journal import Journal

    search = ConfiguredSearch(mcts=mcts, roles=roles, strategies=strategies, theta=theta, min_end_visits=min_end_visits)
    pending = _without_tree(folder, dialogues)
    start = time.perf_counter()
    with Journal(folder, [dialogue.id for dialogue in pending]) as journal:
        client = Client(**{key: roles[key] for key in LIMITS}, journal=journal)
        client.check(search.models)
        expected = _estimate_remaining(search, pending, journal.answered)
        if pending and search.uses_language_models:
            print(f"search: {expected.describe(roles)}")
        progress = ProgressDisplay(len(dialogues), len(dialogues) - len(pending), expected, client, log_metrics)
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
                "iterations": progress.iterations,  # of this run, like `seconds`
                "seconds": round(time.perf_counter() - start, 1),
                "estimate": expected.to_json(roles),
                "budget": dict(roles["budget"]),
                "usage": client.usage.to_json(),
                "agreement_with_gold": agreement(trees),
                "corpus": corpus_report,
            }

        try:
            asyncio.run(_expand_all(search, pending, folder, client, progress, set_aside))
        except (BudgetSpent, ServiceError) as error:
            stopped = str(error)
            unfinished = _without_tree(folder, pending)
            write_json(folder / SUMMARY, summary())
            finished = f"{error}: {len(dialogues) - len(unfinished)} of {len(dialogues)} dialogues are finished"
            if isinstance(error, ServiceError):
                raise ServiceError(f"{finished}, and every answer is kept; the same command goes on") from None
            remaining = _estimate_remaining(search, unfinished, journal.answered)
            raise BudgetSpent(
                f"{finished}, and the rest would take {remaining.describe(roles)}; raise the cap, and the same command goes on"
            ) from None
        except KeyboardInterrupt:
            stopped = "interrupted"
            write_json(folder / SUMMARY, summary())
            raise
        result = summary()
        write_json(folder / SUMMARY, result)
    if dialogues and not result["trees"]:
        name, reason = next(iter(set_aside.items()))
        raise UserError(f"no dialogue could be searched; {name}: {reason}")
    return result


def estimate_rest(dialogues: Sequence[Dialogue], *, folder: Path, **settings) -> str:
    """Returns in one line of text what the rest of a search would use; `settings` are the arguments of ConfiguredSearch."""
    from cso_lab.llm.journal import Journal

    search, pending = ConfiguredSearch(**settings), _without_tree(folder, dialogues)
    journal = Journal(folder, [dialogue.id for dialogue in pending])
    journal.read()
    line = _estimate_remaining(search, pending, journal.answered).describe(search.roles)
    return f"search of {len(pending)} of {len(dialogues)} dialogues: {line}"


def _estimate_remaining(search: ConfiguredSearch, dialogues: Sequence[Dialogue], answered: Mapping[str, int]) -> "Estimate":
    """Returns what `dialogues` will still use. `answered`: the number of replies in the journal by dialogue."""
    from cso_lab.expansion.estimate import estimate

    whole = estimate(search, dialogues)
    calls, journaled = whole.calls.total(), sum(answered.get(dialogue.id, 0) for dialogue in dialogues)
    # All iterations are repeated, but those whose replies are in the journal take no time.
    return replace(whole.scaled(max(0.0, 1 - journaled / calls)), iterations=whole.iterations) if calls else whole


def _without_tree(folder: Path, dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    return [dialogue for dialogue in dialogues if not _tree_file(folder, dialogue).exists()]


def agreement(trees: Sequence[Tree]) -> dict:
    """Returns {"turns", "agree", "share"}: at how many gold turns the strategist scores the gold strategy highest."""
    gold = [node for tree in trees for node in tree.nodes if node.gold and node.parent]
    agree = sum(node is max(node.parent.children, key=lambda child: child.prior) for node in gold)
    return {"turns": len(gold), "agree": agree, "share": round(agree / len(gold), 4) if gold else None}


def _tree_file(folder: Path, dialogue: Dialogue) -> Path:
    return Path(folder) / "trees" / f"{dialogue.id}.json"


async def _expand_all(
    search: ConfiguredSearch,
    dialogues: Sequence[Dialogue],
    folder: Path,
    client: "Client",
    progress: "ProgressDisplay",
    set_aside: dict[str, str],
) -> None:
    """Searches all dialogues at once; adds {id: reason} to `set_aside` for those with an unanswered question."""
    from cso_lab.core.task_group import gather
    from cso_lab.llm.errors import RoleFailure

    role_players = search.role_players(client)
    searcher = search.searcher(role_players)

    async def expand_one(dialogue: Dialogue) -> None:
        try:
            tree = await search.expand_dialogue(
                searcher, dialogue, lambda iteration: progress.iteration(dialogue.id, iteration)
            )
            write_json(_tree_file(folder, dialogue), tree.to_json())
        except RoleFailure as failure:
            set_aside[dialogue.id] = str(failure)
        finally:
            role_players.forget(dialogue)
        progress.finished(dialogue.id, set_aside)

    with progress:
        async with client:
            await gather(expand_one(dialogue) for dialogue in dialogues)
