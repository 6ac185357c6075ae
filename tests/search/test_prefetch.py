"""Prefetching changes how long a search takes and how many questions are asked, and nothing else."""

import asyncio
import json
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_players import FIVE, RandomPlayers, gold_dialogue, run
from small_search import mcts

from cso_lab.search.low_priority import POLL_INTERVAL, LowPriorityQueue, LowPriorityRoles
from cso_lab.search.mcts import MCTS
from cso_lab.search.prefetch import MAX_KEPT_RATIO, TreeOverlay
from cso_lab.search.tree import Tree

DIALOGUES = [gold_dialogue("d1"), gold_dialogue("d2", rounds=3), gold_dialogue("d3", rounds=6)]
ITERATIONS = 20


def search(players, **changes) -> MCTS:
    limits = dict(min_iterations=ITERATIONS, max_iterations=ITERATIONS, max_ends=99, rollout_rounds=2, prior_temperature=5.0)
    return mcts(players, FIVE, **limits | changes)


def grown(players, dialogues=DIALOGUES, **changes) -> tuple[str, float]:
    """(the trees as JSON, the seconds it would have taken)."""

    async def all_at_once():
        ours = search(players, **changes)
        trees = await asyncio.gather(*(ours.search(dialogue) for dialogue in dialogues))
        assert asyncio.all_tasks() == {asyncio.current_task()}, "something goes on after the end"
        return trees

    trees, seconds = run(all_at_once())
    return json.dumps([tree.to_json() for tree in trees]), seconds


@pytest.fixture(scope="module")
def one_by_one() -> dict[tuple, str]:
    """The trees of one question at a time, without prefetching, by (cache_replies, leaf_batch_size)."""
    return {
        (cache_replies, batch): grown(RandomPlayers(slots=1), cache_replies=cache_replies, leaf_batch_size=batch)[0]
        for cache_replies, batch in product((True, False), (1, 4))
    }


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("cache_replies", [True, False])
@pytest.mark.parametrize("speculation", [0, 1, 8])
@pytest.mark.parametrize("slots", [1, 8, 64])
def test_the_trees_are_the_same_for_any_concurrency_and_any_speculation(one_by_one, slots, speculation, cache_replies, batch):
    players = RandomPlayers(slots=slots, pace=random.Random(slots + speculation))
    trees, _ = grown(players, speculation=speculation, cache_replies=cache_replies, leaf_batch_size=batch)
    assert trees == one_by_one[cache_replies, batch]


def test_the_trees_of_other_answers_are_other_trees(one_by_one):
    assert len(set(one_by_one.values())) == 4


@pytest.mark.parametrize("cache_replies", [True, False])
def test_prefetching_is_several_times_faster_and_its_waste_is_bounded(cache_replies):
    plain, ahead = RandomPlayers(slots=32), RandomPlayers(slots=32)
    _, slow = grown(plain, DIALOGUES[:1], cache_replies=cache_replies)
    _, fast = grown(ahead, DIALOGUES[:1], cache_replies=cache_replies, speculation=8)
    assert fast < slow / 3
    # What one leaf can ask for: its own turn 2, its children 1, the child 3, two rounds 4 + 3.
    assert set(plain.asked) <= set(ahead.asked)
    assert len(ahead.asked) <= len(plain.asked) + (1 + MAX_KEPT_RATIO) * 8 * 13


def test_nothing_is_prefetched_where_no_slot_is_idle():
    """With more dialogues than slots some question always waits, until the last dialogues end."""
    dialogues = [gold_dialogue(f"d{i}") for i in range(40)]
    counts = []
    for speculation in (0, 8):
        players = RandomPlayers(slots=4)
        _, seconds = grown(players, dialogues, speculation=speculation)
        counts.append((len(players.asked), seconds))
    (plain, slow), (ahead, fast) = counts
    assert ahead <= 1.02 * plain
    assert fast <= 1.02 * slow


def test_players_that_do_not_say_how_many_slots_are_idle_have_none():
    class Silent(RandomPlayers):
        idle = property()  # raises AttributeError

    plain, silent = RandomPlayers(), Silent()
    assert grown(plain)[0] == grown(silent, speculation=8)[0]
    assert sorted(map(repr, plain.asked)) == sorted(map(repr, silent.asked))


def test_only_the_error_of_a_selected_leaf_is_raised():
    plain, ahead = RandomPlayers(slots=64), RandomPlayers(slots=64)
    expected, _ = grown(plain, DIALOGUES[:1])
    grown(ahead, DIALOGUES[:1], speculation=8)
    unused = [question for question in ahead.asked if question not in set(plain.asked)]
    assert unused
    failing = RandomPlayers(slots=64, fails={question: ValueError("unused") for question in unused})
    assert grown(failing, DIALOGUES[:1], speculation=8)[0] == expected

    error = ValueError("needed")
    for needed in plain.asked[-1], plain.asked[len(plain.asked) // 2]:
        for speculation in (0, 8):
            with pytest.raises(ValueError) as caught:
                grown(RandomPlayers(slots=64, fails={needed: error}), DIALOGUES[:1], speculation=speculation)
            assert caught.value is error


def test_a_cancelled_search_leaves_no_task_running():
    async def cancelled_search():
        players = RandomPlayers(slots=64)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await search(players, speculation=8).search(DIALOGUES[0])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert players.idle == 64

    run(cancelled_search())


# the overlay


def grow(tree: Tree, c: float, iterations: int, seed: int) -> list[str]:
    """Select, add children, backpropagate; what happens at a leaf depends on its path key. Returns the path keys selected."""
    path_keys = []
    for i in range(iterations):
        leaf = tree.select(c)
        path_keys.append(leaf.path_key)
        rng = random.Random(f"{seed} {leaf.path_key} {i}")
        for strategy in "ABC" if rng.random() < 0.8 else "":
            tree.add(leaf, strategy, rng.random())
        leaf.backpropagate(rng.uniform(-3, 1))
    return path_keys


@settings(max_examples=60, deadline=None)
@given(before=st.integers(0, 30), ahead=st.integers(1, 30), c=st.floats(0, 5), seed=st.integers(0, 10**6))
def test_an_overlay_continues_the_search_and_does_not_change_the_tree(before, ahead, c, seed):
    tree = Tree("t", "", "")
    tree.add(None, None, 1.0, seeker="k")
    grow(tree, c, before, seed)
    original = tree.to_json()
    overlay = grow(TreeOverlay(tree), c, ahead, seed + 1)
    assert tree.to_json() == original
    assert all(child.parent is node for node in tree.nodes for child in node.children)
    assert overlay == grow(tree, c, ahead, seed + 1)


# idle slots


class Slots:
    def __init__(self, idle: int):
        self.idle = idle


def test_as_many_slots_are_granted_as_are_idle_first_in_first_out():
    async def scene():
        players = Slots(2)
        queue = LowPriorityQueue(players)
        futures = [queue.request_slot() for _ in range(5)]
        await asyncio.sleep(0)
        # The first request is granted at once; the others at the next poll, when `idle` is still two.
        first = [future.done() for future in futures]
        await asyncio.sleep(1.2 * POLL_INTERVAL)
        players.idle = 0
        later = [future.done() for future in futures]
        await asyncio.sleep(5 * POLL_INTERVAL)
        never = futures[3].done()
        players.idle = 1
        await asyncio.sleep(1.2 * POLL_INTERVAL)
        return first, later, never, [future.done() for future in futures[3:]]

    first, later, never, at_last = run(scene())[0]
    assert first == [True, False, False, False, False]
    assert later == [True, True, True, False, False]
    assert (never, at_last) == (False, [True, False])


def test_a_cancelled_request_is_skipped():
    async def scene():
        players = Slots(0)
        queue = LowPriorityQueue(players)
        cancelled, waiting = queue.request_slot(), queue.request_slot()
        cancelled.cancel()
        players.idle = 1
        await asyncio.sleep(1.2 * POLL_INTERVAL)
        return waiting.done()

    assert run(scene())[0]


class BusyPlayers(RandomPlayers):
    """Players who answer, but never report an idle slot."""

    idle = 0


def test_after_promotion_no_question_waits_for_a_slot():
    async def scene():
        players = BusyPlayers(slots=9)
        roles = LowPriorityRoles(players, LowPriorityQueue(players))
        questions = [asyncio.ensure_future(roles.judge(DIALOGUES[0], DIALOGUES[0].turns[:2], str(i))) for i in range(3)]
        await asyncio.sleep(5)
        before = len(players.asked)
        roles.promote()
        await asyncio.gather(*questions)
        await roles.judge(DIALOGUES[0], DIALOGUES[0].turns[:2], "later")
        return before, len(players.asked)

    assert run(scene())[0] == (0, 4)
