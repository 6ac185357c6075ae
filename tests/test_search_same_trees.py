"""Whole searches over HTTP: whatever the limits, whatever is worked on ahead and whatever fails, the trees are the same bytes."""

from functools import cache

import pytest
from loopback import FAULTS, answering, search, trees

PAPER = ("mcts=paper", "mcts.min_iterations=8", "mcts.max_iterations=8", "roles.timeout=0.3")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """(trees, calls) of one call after another, nothing ahead and no fault, by whether there is memory and answers depend on seeds."""

    @cache
    def found(memory: str, seeded: bool) -> tuple[dict[str, bytes], int]:
        folder = tmp_path_factory.mktemp("one-by-one")
        with answering(seeded=seeded) as server:
            search(folder, server.api_base, *settings(memory, 1, 0), dialogues=1)
        return trees(folder), len(server.requests)

    return found


def settings(memory: str, concurrency: int, speculation: int) -> tuple[str, ...]:
    return (*PAPER, f"mcts.memory={memory}", f"roles.max_concurrency={concurrency}", f"mcts.speculation={speculation}")


@pytest.mark.parametrize("memory", ["true", "false"])
@pytest.mark.parametrize("speculation", [0, 8])
@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_for_any_concurrency_and_any_speculation(one_by_one, concurrency, speculation, memory, tmp_path):
    # Answers that depend on the seed: every question has its own, and a question asked twice would show.
    expected, calls = one_by_one(memory, True)
    with answering(seeded=True) as server:
        search(tmp_path, server.api_base, *settings(memory, concurrency, speculation), dialogues=1)
    assert trees(tmp_path) == expected
    if speculation and concurrency > 1:
        assert len(server.requests) > calls, "nothing was worked on ahead"
    else:
        assert len(server.requests) == calls


# What brought nonsense is asked again with another seed, so only answers to the words alone stay the same then.
SEEDED = ("429", "500", "hanging", "cut")
EVERY = [pytest.param(faults, marks=pytest.mark.long, id=faults[0]) for faults in zip(FAULTS)]


@pytest.mark.parametrize("faults", [pytest.param(tuple(FAULTS), id="all"), *EVERY])
@pytest.mark.parametrize("speculation", [0, 8])
@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_also_with_a_fifth_of_all_calls_failing(one_by_one, concurrency, speculation, faults, tmp_path):
    seeded = set(faults) <= set(SEEDED)
    expected, calls = one_by_one("true", seeded)
    with answering(0.2, faults, seeded) as server:
        summary = search(tmp_path, server.api_base, *settings("true", concurrency, speculation), dialogues=1)
    assert trees(tmp_path) == expected and summary["set_aside"] == {}
    failed = summary["usage"]["failed_attempts"]
    assert 0.1 * len(server.requests) < failed < 0.35 * len(server.requests)
    assert len(server.requests) >= calls + failed if speculation else len(server.requests) == calls + failed
