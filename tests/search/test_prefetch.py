"""Working ahead changes how long a search takes and how much is asked, and nothing else."""

import asyncio
import json
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_players import FIVE, RandomPlayers, gold_dialogue, run
from small_search import mcts

from cso_lab.search.idle_slots import TICK, AskedAhead, IdleSlots
from cso_lab.search.mcts import MCTS
from cso_lab.search.prefetch import KEPT, TreeOverlay
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
    """The trees of one question at a time, nothing ahead, by (memory, leaf_batch_size)."""
    return {
        (memory, wave): grown(RandomPlayers(slots=1), cache_replies=memory, leaf_batch_size=wave)[0]
        for memory, wave in product((True, False), (1, 4))
    }


@pytest.mark.parametrize("wave", [1, 4])
@pytest.mark.parametrize("cache_replies", [True, False])
@pytest.mark.parametrize("speculation", [0, 1, 8])
@pytest.mark.parametrize("slots", [1, 8, 64])
def test_the_trees_are_the_same_for_any_concurrency_and_any_speculation(one_by_one, slots, speculation, memory, wave):
    players = RandomPlayers(slots=slots, pace=random.Random(slots + speculation))
    trees, _ = grown(players, speculation=speculation, cache_replies=memory, leaf_batch_size=wave)
    assert trees == one_by_one[memory, wave]


def test_the_trees_of_other_answers_are_other_trees(one_by_one):
    assert len(set(one_by_one.values())) == 4


@pytest.mark.parametrize("cache_replies", [True, False])
def test_working_ahead_is_several_times_faster_and_its_waste_is_bounded(memory):
    plain, ahead = RandomPlayers(slots=32), RandomPlayers(slots=32)
    _, slow = grown(plain, DIALOGUES[:1], cache_replies=memory)
    _, fast = grown(ahead, DIALOGUES[:1], cache_replies=memory, speculation=8)
    assert fast < slow / 3
    # What one leaf can ask for: its own turn 2, its children 1, the child 3, two rounds 4 + 3.
    assert set(plain.asked) <= set(ahead.asked)
    assert len(ahead.asked) <= len(plain.asked) + (1 + KEPT) * 8 * 13


def test_nothing_is_done_ahead_where_no_slot_is_idle():
    """With more dialogues than slots somebody always waits, until the last dialogues come to their end."""
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


def test_only_the_error_of_a_leaf_that_is_selected_comes_out():
    plain, ahead = RandomPlayers(slots=64), RandomPlayers(slots=64)
    expected, _ = grown(plain, DIALOGUES[:1])
    grown(ahead, DIALOGUES[:1], speculation=8)
    in_vain = [question for question in ahead.asked if question not in set(plain.asked)]
    assert in_vain
    failing = RandomPlayers(slots=64, fails={question: ValueError("in vain") for question in in_vain})
    assert grown(failing, DIALOGUES[:1], speculation=8)[0] == expected

    error = ValueError("needed")
    for needed in plain.asked[-1], plain.asked[len(plain.asked) // 2]:
        for speculation in (0, 8):
            with pytest.raises(ValueError) as caught:
                grown(RandomPlayers(slots=64, fails={needed: error}), DIALOGUES[:1], speculation=speculation)
            assert caught.value is error


def test_a_search_that_is_given_up_leaves_nothing_under_way():
    async def give_up():
        players = RandomPlayers(slots=64)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await search(players, speculation=8).search(DIALOGUES[0])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert players.idle == 64

    run(give_up())


# a overlay


def grow(tree: Tree, c: float, iterations: int, seed: int) -> list[str]:
    """Select, add children, backpropagate; what happens at a leaf depends on its place. Returns the places selected."""
    places = []
    for i in range(iterations):
        leaf = tree.select(c)
        places.append(leaf.path_key)
        chance = random.Random(f"{seed} {leaf.path_key} {i}")
        for strategy in "ABC" if chance.random() < 0.8 else "":
            tree.add(leaf, strategy, chance.random())
        leaf.backpropagate(chance.uniform(-3, 1))
    return places


@settings(max_examples=60, deadline=None)
@given(before=st.integers(0, 30), ahead=st.integers(1, 30), c=st.floats(0, 5), seed=st.integers(0, 10**6))
def test_a_forecast_goes_on_like_the_tree_and_leaves_it_alone(before, ahead, c, seed):
    tree = Tree("t", "", "")
    tree.add(None, None, 1.0, seeker="k")
    grow(tree, c, before, seed)
    as_it_was = tree.to_json()
    overlay = grow(TreeOverlay(tree), c, ahead, seed + 1)
    assert tree.to_json() == as_it_was
    assert all(child.parent is node for node in tree.nodes for child in node.children)
    assert overlay == grow(tree, c, ahead, seed + 1)


# idle slots


class Slots:
    def __init__(self, idle: int):
        self.idle = idle


def test_leave_is_given_for_as_many_as_are_idle_first_come_first_served():
    async def scene():
        players = Slots(2)
        slots = IdleSlots(players)
        asked = [slots.ask() for _ in range(5)]
        await asyncio.sleep(0)
        # The first one looks at once; the others wait for the tick, when `idle` still says two.
        first = [future.done() for future in asked]
        await asyncio.sleep(1.2 * TICK)
        players.idle = 0
        later = [future.done() for future in asked]
        await asyncio.sleep(5 * TICK)
        never = asked[3].done()
        players.idle = 1
        await asyncio.sleep(1.2 * TICK)
        return first, later, never, [future.done() for future in asked[3:]]

    first, later, never, at_last = run(scene())[0]
    assert first == [True, False, False, False, False]
    assert later == [True, True, True, False, False]
    assert (never, at_last) == (False, [True, False])


def test_who_no_longer_waits_is_passed_over():
    async def scene():
        players = Slots(0)
        slots = IdleSlots(players)
        gone, there = slots.ask(), slots.ask()
        gone.cancel()
        players.idle = 1
        await asyncio.sleep(1.2 * TICK)
        return there.done()

    assert run(scene())[0]


def test_hurrying_lets_everything_through():
    async def scene():
        players = RandomPlayers(slots=0)
        ahead = AskedAhead(players, IdleSlots(players))
        players._free = asyncio.Semaphore(9)
        questions = [asyncio.ensure_future(ahead.judge(DIALOGUES[0], DIALOGUES[0].turns[:2], str(i))) for i in range(3)]
        await asyncio.sleep(5)
        before = len(players.asked)
        ahead.promote()
        await asyncio.gather(*questions)
        await ahead.judge(DIALOGUES[0], DIALOGUES[0].turns[:2], "later")
        return before, len(players.asked)

    assert run(scene())[0] == (0, 4)
