"""Several leaves at once with virtual loss, worked out by hand on the small dialogue."""

import asyncio
import random

import pytest
from fakes import ScriptedRoles, judged
from small_search import DIALOGUE, SCRIPT, mcts, planted, searched, seeker, supporter

from cso_lab.core.records import Dialogue, SeekerReply


def batch(tree, size: int) -> list[int]:
    return [leaf.id for leaf in mcts(None).select_batch(tree, size)]


def test_a_batch_by_hand():
    # A, B, C below the root, A gold; below A: A, the gold end B, C. A chosen leaf counts as a visit worth -3, all the way up.
    tree = planted(ScriptedRoles(**SCRIPT))
    before = tree.to_json()
    assert batch(tree, 1) == [2]  # B = C = .25 * 10 = 2.5, A = 1.05: the first of equals
    assert batch(tree, 2) == [2, 3]  # B = -3 + .25 * 10.05 / 2 = -1.74, C = 2.51
    assert batch(tree, 3) == [2, 3, 4]  # C = -1.74, A = 1.05; below A: A = C = .25 * 10 = 2.5, end 1.05
    assert batch(tree, 4) == [2, 3, 4, 6]  # A = .96 + .05 = 1.01; below it A = -3 + 1.26, C = 2.51
    assert batch(tree, 5) == [2, 3, 4, 6, 5]  # A = .92 + .05; below it A = C = -1.74, end 1.05
    assert batch(tree, 9) == [2, 3, 4, 6, 5]  # A = .88 + .05; the end = .96 + .05, still the best: a leaf is evaluated once
    assert tree.to_json() == before


def test_the_virtual_losses_are_taken_back_before_the_outcomes_are_applied():
    # B (2) gives (1 + 0)/2, as in the search one by one, and C (3) ends with -1; both below a root with Q 1 and N 100.
    tree = searched(ScriptedRoles(**SCRIPT), rollout_rounds=1, leaf_batch_size=2, min_iterations=2, max_iterations=2)
    visited = {node.id: (node.q, node.n) for node in tree.nodes if node.n and not node.gold}
    assert visited == {2: (0.5, 1), 7: (0.5, 1), 3: (-1, 1)}
    assert (tree.root.q, tree.root.n) == (pytest.approx(99.5 / 102), 102)


def test_the_leaves_of_a_batch_are_evaluated_at_once_and_applied_in_their_order():
    limits = dict(rollout_rounds=2, min_iterations=12, max_iterations=12, leaf_batch_size=4)
    patient = searched(ScriptedRoles(show_draw=True, **SCRIPT), **limits).to_json()
    for seed in range(5):
        roles = ScriptedRoles(show_draw=True, slow=random.Random(seed), **SCRIPT)
        assert searched(roles, **limits).to_json() == patient
    one_by_one = searched(ScriptedRoles(show_draw=True, **SCRIPT), **limits | {"leaf_batch_size": 1}).to_json()
    assert one_by_one != patient
    roles = ScriptedRoles()
    searched(roles, leaf_batch_size=2, min_iterations=2, max_iterations=2)
    first = roles.calls[2:4]  # after init_from_gold
    assert [(role, path) for role, path, _ in first] == [("supporter", "B"), ("supporter", "C")]


@pytest.mark.parametrize("iterations", [7, 8, 9])
def test_a_batch_ends_where_the_search_does(iterations):
    done = []
    search = mcts(ScriptedRoles(), rollout_rounds=1, leaf_batch_size=4, min_iterations=iterations, max_iterations=20)
    tree = asyncio.run(search.search(DIALOGUE, lambda tree, iteration: done.append(iteration)))
    assert done == list(range(1, iterations + 1))
    assert tree.root.n == 100 + iterations


def test_a_batch_is_cut_short_by_the_end_that_stops_the_search():
    class Leaver(ScriptedRoles):
        async def seeker(self, dialogue, history, draw):
            await super().seeker(dialogue, history, draw)
            return SeekerReply("bye", True)

        async def judge(self, dialogue, history, draw):
            return judged(2)  # worth -1: an end is not taken again

    turns = tuple(turn for i in range(8) for turn in (seeker(f"k{i}"), supporter("A", f"s{i}")))
    search = mcts(Leaver(), leaf_batch_size=4, min_iterations=50, max_iterations=50, max_ends=6)
    tree = asyncio.run(search.search(Dialogue("d", "", "", turns)))
    # the gold end and one of each leaf: four of the first batch, one of the second
    assert sum(1 for _ in tree.ends()) == 6
    assert tree.root.n == 105


def test_the_error_of_one_leaf_ends_the_batch():
    roles = ScriptedRoles(supporter_says={"C": ValueError("no")}, judge_says={"B.A": judged(4)}, slow=random.Random(0))
    with pytest.raises(ValueError, match="no"):
        searched(roles, leaf_batch_size=2, min_iterations=2, max_iterations=2)
    assert roles.cancelled
