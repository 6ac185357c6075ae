"""Whole searches over HTTP: whatever the limits, whatever is worked on ahead and whatever fails, the trees are the same bytes."""

from functools import cache
from itertools import product
from pathlib import Path

import pytest
from loopback import FAULTS, answering, journal, search, trees

from cso_lab.expansion.configured_search import Plan
from cso_lab.llm.client import Client

PAPER = ("mcts=paper", "mcts.min_iterations=16", "mcts.max_iterations=16")
# (calls at once, leaves worked on ahead); the quick tests try the last
LIMITS = [pytest.param(*limits, marks=() if limits == (64, 8) else pytest.mark.long) for limits in product((1, 8, 64), (0, 8))]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def settings(memory: str, concurrency: int, speculation: int) -> tuple[str, ...]:
    return (*PAPER, f"mcts.cache_replies={memory}", f"roles.max_concurrency={concurrency}", f"mcts.speculation={speculation}")


def answered(folder: Path) -> set[str]:
    """The keys of the questions that were answered, each once."""
    keys = [call["key"] for call in journal(folder) if "fault" not in call]
    assert len(set(keys)) == len(keys), "what was paid for was asked again"
    return set(keys)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """(trees, questions) of one call after another, nothing ahead and no fault, by whether there is memory and whether answers
    depend on seeds."""

    @cache
    def found(memory: str, seeded: bool) -> tuple[dict[str, bytes], set[str]]:
        folder = tmp_path_factory.mktemp("one-by-one")
        with answering(seeded=seeded) as server:
            search(folder, server.api_base, *settings(memory, 1, 0), dialogues=1)
        return trees(folder), answered(folder)

    return found


def check(folder: Path, expected: tuple[dict[str, bytes], set[str]], concurrency: int, speculation: int) -> None:
    same, questions = expected
    assert same and trees(folder) == same
    if speculation:
        assert answered(folder) >= questions
        assert concurrency == 1 or len(answered(folder)) > len(questions), "nothing was worked on ahead"
    else:
        assert answered(folder) == questions


@pytest.mark.parametrize("cache_replies", ["true", "false"])
@pytest.mark.parametrize(("concurrency", "speculation"), LIMITS)
def test_for_any_concurrency_and_any_speculation(one_by_one, concurrency, speculation, memory, tmp_path):
    # Answers that depend on the seed: a question that was given another one would have another answer.
    with answering(seeded=True) as server:
        search(tmp_path, server.api_base, *settings(memory, concurrency, speculation), dialogues=1)
    check(tmp_path, one_by_one(memory, True), concurrency, speculation)


# What brought nonsense is asked again with another seed; only answers that do not depend on it stay the same then.
SEEDED = ("429", "500", "hanging", "cut")
EVERY = [pytest.param((fault,), marks=pytest.mark.long, id=fault) for fault in FAULTS]


@pytest.mark.parametrize("faults", [pytest.param(tuple(FAULTS), id="all"), *EVERY])
@pytest.mark.parametrize(("concurrency", "speculation"), LIMITS)
def test_also_with_a_fifth_of_all_calls_failing(one_by_one, concurrency, speculation, faults, tmp_path):
    seeded = set(faults) <= set(SEEDED)
    limits = [*settings("true", concurrency, speculation), *(["roles.timeout=0.4"] if "hanging" in faults else [])]
    with answering(0.2, faults, seeded) as server:
        summary = search(tmp_path, server.api_base, *limits, dialogues=1)
    assert summary["set_aside"] == {}
    assert summary["usage"]["failed_attempts"] > 0.1 * len(server.requests)
    check(tmp_path, one_by_one("true", seeded), concurrency, speculation)


def test_all_dialogues_share_the_idle_slots(monkeypatch, tmp_path):
    """Were each given some of its own, several would be told of the same one."""
    grow, slots = Plan.grow, []

    async def noted(plan, search, *rest):
        if isinstance(search.roles._client, Client):  # not the estimate's
            slots.append(search.idle_slots)
        return await grow(plan, search, *rest)

    monkeypatch.setattr(Plan, "grow", noted)
    with answering() as server:
        search(tmp_path, server.api_base, "mcts.speculation=8", "mcts.min_iterations=1", "mcts.max_iterations=1", dialogues=3)
    assert len(slots) == 3 and len(set(map(id, slots))) == 1
