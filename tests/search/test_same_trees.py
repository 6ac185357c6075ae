"""Whole searches over HTTP: whatever the limits, the prefetching and the failures, the trees are the same bytes."""

from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from loopback import FAULTS, answering, journal, search, trees

from cso_lab.core.records import Dialogue
from cso_lab.search.mcts import MCTS
from cso_lab.search.tree import Tree

PAPER = ("mcts=paper", "mcts.min_iterations=16", "mcts.max_iterations=16")
# (calls at once, leaves prefetched); the quick tests try the last
LIMITS = [pytest.param(*limits, marks=() if limits == (64, 8) else pytest.mark.long) for limits in product((1, 8, 64), (0, 8))]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def settings(cache_replies: str, concurrency: int, speculation: int) -> tuple[str, ...]:
    return (
        *PAPER,
        f"mcts.cache_replies={cache_replies}",
        f"roles.max_concurrency={concurrency}",
        f"mcts.speculation={speculation}",
    )


def answered(folder: Path) -> set[str]:
    """The keys of the questions that were answered, each once."""
    keys = [call["key"] for call in journal(folder) if "fault" not in call]
    assert len(set(keys)) == len(keys), "a question was asked again although its answer was paid for"
    return set(keys)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """(trees, questions) of one call at a time without prefetching and failures, by whether replies are cached and whether they
    depend on seeds."""

    @cache
    def reference(cache_replies: str, seeded: bool) -> tuple[dict[str, bytes], set[str]]:
        folder = tmp_path_factory.mktemp("one-by-one")
        with answering(seeded=seeded) as server:
            search(folder, server.api_base, *settings(cache_replies, 1, 0), dialogues=1)
        return trees(folder), answered(folder)

    return reference


def check(folder: Path, expected: tuple[dict[str, bytes], set[str]], concurrency: int, speculation: int) -> None:
    same, questions = expected
    assert same and trees(folder) == same
    if speculation:
        assert answered(folder) >= questions
        assert concurrency == 1 or len(answered(folder)) > len(questions), "nothing was prefetched"
    else:
        assert answered(folder) == questions


@pytest.mark.parametrize("cache_replies", ["true", "false"])
@pytest.mark.parametrize(("concurrency", "speculation"), LIMITS)
def test_for_any_concurrency_and_any_speculation(one_by_one, concurrency, speculation, cache_replies, tmp_path):
    # Answers that depend on the seed: a question that was given another one would have another answer.
    with answering(seeded=True) as server:
        search(tmp_path, server.api_base, *settings(cache_replies, concurrency, speculation), dialogues=1)
    check(tmp_path, one_by_one(cache_replies, True), concurrency, speculation)


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


class RecordedMCTS(MCTS):
    """The search of the paper, which records the dialogues that each instance is given."""

    searched = []

    async def search(self, dialogue: Dialogue, on_iteration: Callable[[Tree, int], None]) -> Tree:
        self.searched.append((self, dialogue.id))
        return await super().search(dialogue, on_iteration)


def test_all_dialogues_share_one_search_and_so_its_low_priority_queue(tmp_path):
    """With a queue for each dialogue, the same idle slot would be granted several times."""
    small = ("mcts.speculation=8", "mcts.min_iterations=1", "mcts.max_iterations=1")
    with answering() as server:
        search(tmp_path, server.api_base, f"mcts.search._target_={__name__}.RecordedMCTS", *small, dialogues=3)
    names = {path.removesuffix(".json") for path in trees(tmp_path)}
    by_instance = {}
    for instance, name in RecordedMCTS.searched:
        by_instance.setdefault(id(instance), set()).add(name)
    # one instance for the search itself and two for its estimate
    assert len(names) == 3 and list(by_instance.values()) == [names] * 3
