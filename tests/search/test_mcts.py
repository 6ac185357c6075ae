"""The search of section 3.1 against a dialogue small enough to work out on paper."""

import asyncio
from collections import Counter

import pytest
from fakes import ScriptedRoles, judged
from small_search import DIALOGUE, K0, K1, K2, S1, S2, SCRIPT, children, mcts, planted, searched, seeker, supporter

from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, SeekerReply
from cso_lab.search.mcts import MCTS
from cso_lab.search.tree import Tree

FULL = {"strategist": 5, "supporter": 6, "seeker": 5, "judge": 5}  # 21 calls: leaf, child and four rounds

# the first path


def test_gold_dialogue_is_the_first_path():
    roles = ScriptedRoles(strategist_says={"A": {"A": 0, "B": 1, "C": 0}})
    tree = planted(roles)
    rows = [
        (
            node.id,
            node.parent and node.parent.id,
            node.strategy,
            node.prior,
            node.q,
            node.n,
            node.supporter,
            node.seeker,
            node.end,
        )
        for node in tree.nodes
    ]
    assert rows == [
        (0, None, None, 1.0, 1, 100, None, "k0", False),
        (1, 0, "A", pytest.approx(0.5), 1, 100, "s1", "k1", False),
        (2, 0, "B", pytest.approx(0.25), 0, 0, None, None, False),
        (3, 0, "C", pytest.approx(0.25), 0, 0, None, None, False),
        (4, 1, "A", pytest.approx(0.25), 0, 0, None, None, False),
        (5, 1, "B", pytest.approx(0.5), 1, 100, "s2", None, True),
        (6, 1, "C", pytest.approx(0.25), 0, 0, None, None, False),
    ]
    assert [node.id for node in tree.nodes if node.gold] == [0, 1, 5]
    assert [node.id for node in tree.nodes if node.expanded] == [0, 1, 5]
    assert all(node.scores is None for node in tree.nodes)
    assert roles.counts() == {"strategist": 2}


def test_priors_are_a_softmax_at_the_temperature():
    # e^(10/5), e^(5/5), e^0 = 7.389, 2.718, 1, of 11.107
    tree = planted(ScriptedRoles(strategist_says={"": {"C": 0, "B": 5, "A": 10}}), prior_temperature=5.0)
    priors = {name: node.prior for name, node in children(tree.root).items()}
    assert priors == pytest.approx({"A": 0.66524, "B": 0.24473, "C": 0.09003}, abs=1e-5)
    assert list(priors) == ["A", "B", "C"]


def test_unscored_gold_strategy_joins_with_its_prior_and_the_others_shrink():
    roles = ScriptedRoles(strategist_says={"": {"B": 2, "C": 1}})  # 4 : 2
    first = children(planted(roles).root)
    assert {name: node.prior for name, node in first.items()} == pytest.approx({"B": 0.9 * 2 / 3, "C": 0.9 / 3, "A": 0.1})
    assert first["A"].gold and first["A"].expanded and not first["B"].expanded


def test_unscored_other_strategy_gets_no_node():
    assert set(children(planted(ScriptedRoles(strategist_says={"": {"A": 2, "C": 1}})).root)) == {"A", "C"}


def test_strategist_is_shown_what_precedes_each_gold_turn():
    roles = ScriptedRoles()
    planted(roles)
    assert roles.shown == [("strategist", (K0,)), ("strategist", (K0, S1, K1))]


@pytest.mark.parametrize("label", [None, "C"])
def test_opening_supporter_turn_belongs_to_the_root(label):
    hello = supporter(label, "hello")
    roles = ScriptedRoles()
    tree = planted(roles, Dialogue("d", "", "", (hello, K0, S1, K1, S2)))
    assert (tree.root.supporter, tree.root.seeker, tree.root.q, tree.root.n) == ("hello", "k0", 1, 100)
    assert roles.shown == [("strategist", (hello, K0)), ("strategist", (hello, K0, S1, K1))]
    assert len(tree.nodes) == 7
    end = next(tree.ends())
    assert end.history() == (hello, K0, S1, K1, S2)


def test_closing_seeker_turn_stands_in_the_end_node():
    tree = planted(ScriptedRoles(), Dialogue("d", "", "", (K0, S1, K1, S2, K2)))
    (end,) = tree.ends()
    assert (end.supporter, end.seeker, end.gold) == ("s2", "k2", True)
    assert end.history() == (K0, S1, K1, S2, K2)


# selection, expansion, simulation, backpropagation, worked out by hand

# After each iteration: {node: (Q, N)} of every visited node but the gold end, which keeps (1, 100) throughout.
BY_HAND = [
    # root N=100: A 1 + .5*10/101 = 1.05, B = C = .25*10 = 2.5: the first of equals, B. Reward (1 + 0)/2.
    {0: (100.5 / 101, 101), 1: (1, 100), 2: (0.5, 1), 7: (0.5, 1)},
    # sqrt 101 = 10.05: A 1.05, B .5 + .25*10.05/2 = 1.76, C 2.51. C ends in its expansion: -1.
    {0: (99.5 / 102, 102), 1: (1, 100), 2: (0.5, 1), 7: (0.5, 1), 3: (-1, 1)},
    # sqrt 102 = 10.10: A 1.05, B .5 + .25*10.10/2 = 1.76, C -1 + 1.26 = .26. Below B (N=1): A .5 + .5/2 = .75, others .25.
    # B.A is expanded: its child B.A.A ends with the turn scored 3 -> 0.
    {0: (99.5 / 103, 103), 1: (1, 100), 2: (0.25, 2), 7: (0.25, 2), 3: (-1, 1), 10: (0, 1)},
    # sqrt 103 = 10.15: A 1.0502, B .25 + .25*10.15/3 = 1.0957. Below B (N=2): A .25 + .5*1.41/3 = .49, others .35.
    # Below B.A (N=2): A 0 + .5*1.41/2, B .25*1.41/1, equal: the first, the end node again: 0.
    {0: (99.5 / 104, 104), 1: (1, 100), 2: (1 / 6, 3), 7: (1 / 6, 3), 3: (-1, 1), 10: (0, 2)},
    # sqrt 104 = 10.20: A 1.05, B .17 + .25*10.20/4 = .80. Below A (N=100): A .25*10 = 2.5, end 1.05, C 2.5. Reward (1 + 1)/2.
    {0: (100.5 / 105, 105), 1: (1, 101), 2: (1 / 6, 3), 7: (1 / 6, 3), 3: (-1, 1), 10: (0, 2), 4: (1, 1), 13: (1, 1)},
    # A again. Below A (sqrt 101 = 10.05): A 1 + .25*10.05/2 = 2.26, end 1.05, C 2.51. C ends in its expansion: 1.
    {
        0: (101.5 / 106, 106),
        1: (1, 102),
        2: (1 / 6, 3),
        7: (1 / 6, 3),
        3: (-1, 1),
        10: (0, 2),
        4: (1, 1),
        13: (1, 1),
        6: (1, 1),
    },
]
LEAVES = [2, 3, 7, 10, 4, 6]
# init_from_gold 2; 1 and 5: 2 + 1 + 2 + judge 2 + one round's strategist and supporter; 2 and 6: 2 + judge; 3: 1 + 2 + judge; 4: none
CALLS = [2 + 9, 3, 4, 0, 9, 3]


def test_six_iterations_by_hand():
    roles = ScriptedRoles(**SCRIPT)
    search = mcts(roles, rollout_rounds=1, min_iterations=6, max_iterations=6)
    seen, calls, leaves, apply = [], [0], [], MCTS.apply

    class Watched(MCTS):
        def apply(self, tree, leaf, outcome):
            leaves.append(leaf.id)
            apply(self, tree, leaf, outcome)

    def note(tree, iteration):
        assert iteration == len(seen) + 1
        seen.append({node.id: (node.q, node.n) for node in tree.nodes if node.n and node.id != 5})
        assert (tree.nodes[5].q, tree.nodes[5].n) == (1, 100)
        calls.append(len(roles.calls))

    tree = asyncio.run(Watched(**vars(search)).search(DIALOGUE, note))
    assert leaves == LEAVES
    assert [after - before for before, after in zip(calls, calls[1:], strict=False)] == CALLS
    for got, expected in zip(seen, BY_HAND, strict=True):
        assert got.keys() == expected.keys()
        for id, values in expected.items():
            assert got[id] == pytest.approx(values), id

    assert [node.id for node in tree.ends()] == [3, 5, 6, 10]
    assert [(node.strategy, node.parent.id) for node in tree.nodes[7:]] == [(s, p) for p in (2, 7, 4) for s in "ABC"]
    assert {node.id: node.scores for node in tree.nodes if node.scores} == {
        3: judged(2),
        6: judged(4),
        7: judged(4),
        10: judged(3),
        13: judged(4),
    }
    assert (tree.nodes[3].supporter, tree.nodes[3].seeker) == ("s:C", "bye")
    assert (tree.nodes[10].supporter, tree.nodes[10].seeker, tree.nodes[10].end) == ("s:B.A.A", None, True)
    # B was expanded on the way, but its own turn was never scored
    assert (tree.nodes[2].supporter, tree.nodes[2].seeker, tree.nodes[2].scores) == ("s:B", "k:B", None)


def test_without_exploration_the_search_follows_q():
    # c = 0: the gold path's Q of 1 leads to its end, which is judged once and then costs nothing
    roles = ScriptedRoles(judge_says={"A.B": judged(3)})
    tree = searched(roles, c=0.0, min_iterations=3, max_iterations=3)
    assert roles.counts() == {"strategist": 2, "judge": 1}
    assert roles.shown[-1] == ("judge", (K0, S1, K1, S2))
    assert (tree.nodes[5].n, tree.nodes[5].q) == (103, pytest.approx(100 / 103))
    assert (tree.root.n, tree.root.q) == (103, pytest.approx(100 / 103))
    assert tree.nodes[5].scores == judged(3)


def test_the_judge_of_a_gold_end_is_not_shown_the_closing_seeker_turn():
    roles = ScriptedRoles()
    searched(roles, Dialogue("d", "", "", (K0, S1, K1, S2, K2)), c=0.0)
    assert roles.shown[-1] == ("judge", (K0, S1, K1, S2))


def test_a_full_iteration_makes_21_calls():
    roles = ScriptedRoles()
    search = mcts(roles)
    tree = asyncio.run(search.init_from_gold(DIALOGUE))
    roles.calls.clear()
    roles.shown.clear()
    asyncio.run(search.evaluate_leaf(DIALOGUE, tree.nodes[2]))
    assert roles.counts() == FULL and len(roles.calls) == 21
    # the seeker's answer to the last round would be read by nobody
    assert {path for role, path, _ in roles.calls if role == "seeker"} == {"B", "B.A", "B.A.A", "B.A.A.A", "B.A.A.A.A"}
    assert {path for role, path, _ in roles.calls if role == "judge"} == {f"B{'.A' * n}" for n in range(1, 6)}
    # who is shown what: the judge and the seeker up to a supporter turn, the others up to a seeker turn
    last = {"judge": SUPPORTER, "seeker": SUPPORTER, "supporter": SEEKER, "strategist": SEEKER}
    assert all(history[-1].speaker == last[role] for role, history in roles.shown)
    assert roles.shown[0] == ("supporter", (K0,))
    longest = max((history for role, history in roles.shown if role == "judge"), key=len)
    assert [turn.text for turn in longest[:4]] == ["k0", "s:B", "k:B", "s:B.A"] and len(longest) == 12


def test_reward_is_the_mean_over_the_childs_turn_and_the_simulated_ones():
    scores = {"B.A": 4, "B.A.A": 3, "B.A.A.A": 2, "B.A.A.A.A": 1, "B.A.A.A.A.A": 3}  # 1, 0, -1, -2, 0
    roles = ScriptedRoles(judge_says={path: judged(score) for path, score in scores.items()})
    tree = searched(roles)
    assert (tree.nodes[2].q, tree.nodes[7].q) == (pytest.approx(-0.4), pytest.approx(-0.4))
    assert tree.nodes[7].scores == judged(4)  # its own turn alone
    assert (tree.root.q, tree.root.n) == (pytest.approx(99.6 / 101), 101)


def test_simulation_starts_from_the_best_scored_child_and_stays_greedy():
    roles = ScriptedRoles(strategist_says={"B": {"A": 3, "B": 3, "C": 9}, "B.C": {"A": 0, "B": 8, "C": 8}})
    tree = searched(roles, rollout_rounds=2)
    below = children(tree.nodes[2])
    assert {name: node.n for name, node in below.items()} == {"A": 0, "B": 0, "C": 1}
    assert below["C"].expanded and not below["A"].expanded and below["A"].q == 0
    # of equals the first in the strategies' order
    assert [path for role, path, _ in roles.calls if role == "judge"] == ["B.C", "B.C.B", "B.C.B.A"]


def test_a_rollout_ends_with_the_seeker():
    ends = {"B.A.A": SeekerReply("thanks", True)}
    scores = {"B.A": judged(4), "B.A.A": judged(3)}
    roles = ScriptedRoles(seeker_says=ends, judge_says=scores)
    tree = searched(roles)
    assert tree.nodes[2].q == pytest.approx(0.5)
    assert Counter(role for role, _, _ in roles.calls) == {"strategist": 2 + 2, "supporter": 3, "seeker": 3, "judge": 2}
    # it ended in the simulation, not in the tree
    assert [node.id for node in tree.ends()] == [5]


def test_a_child_that_ends_is_worth_its_own_turn():
    roles = ScriptedRoles(seeker_says={"B.A": SeekerReply("bye", True)}, judge_says={"B.A": judged(2)})
    tree = searched(roles)
    assert roles.counts() == {"strategist": 2 + 1, "supporter": 2, "seeker": 2, "judge": 1}
    child = tree.nodes[7]
    assert (child.end, child.seeker, child.scores, child.q, child.n) == (True, "bye", judged(2), -1, 1)
    assert roles.shown[-1][1][-1] == supporter("A", "s:B.A")  # not the seeker's goodbye


# stop


@pytest.mark.parametrize(
    ("iteration", "ends", "finished"),
    [
        (0, 1, False),
        (99, 1, False),
        (100, 0, False),
        (100, 1, True),
        (199, 0, False),
        (200, 0, True),
        (3, 24, False),
        (3, 25, True),
    ],
)
def test_stop_rule(iteration, ends, finished):
    tree = Tree("d", "", "")
    tree.add(None, None, 1.0, seeker="k0")
    for _ in range(ends):
        tree.add(tree.root, "A", 0.5, supporter="s", end=True)
    before = tree.to_json()
    search = mcts(ScriptedRoles(), min_iterations=100, max_iterations=200, min_ends=1, max_ends=25)
    assert search.finished(tree, iteration) is finished
    assert tree.to_json() == before


class Leaver(ScriptedRoles):
    """A seeker who leaves at once, whatever is said, and a judge who gives every turn a 2."""

    async def judge(self, dialogue, history, draw):
        await super().judge(dialogue, history, draw)
        return judged(2)

    async def seeker(self, dialogue, history, draw):
        await super().seeker(dialogue, history, draw)
        return SeekerReply("bye", True)


def test_25_ends_stop_the_search_before_100_iterations():
    done = []
    turns = tuple(turn for i in range(20) for turn in (seeker(f"k{i}"), supporter("A", f"s{i}")))
    search = mcts(Leaver(), min_iterations=100, max_iterations=200)
    tree = asyncio.run(search.search(Dialogue("d", "", "", turns), lambda tree, iteration: done.append(iteration)))
    # Each of the 2 * 20 siblings of the gold path ends at once and is worth -1, so it is not taken again (-1 + .25*10/2 < 1.05)
    # and every iteration finds a new end: with the gold one 25 after 24.
    assert sum(1 for _ in tree.ends()) == 25
    assert done == list(range(1, 25))


def test_the_gold_end_is_enough_to_stop_at_the_least_number_of_iterations():
    done = []
    search = mcts(ScriptedRoles(), rollout_rounds=1, min_iterations=10, max_iterations=20)
    asyncio.run(search.search(DIALOGUE, lambda tree, iteration: done.append(iteration)))
    assert done[-1] == 10


def test_too_few_ends_let_it_run_to_the_greatest_number_of_iterations():
    done = []
    search = mcts(ScriptedRoles(), rollout_rounds=1, min_iterations=2, max_iterations=7, min_ends=2)
    asyncio.run(search.search(DIALOGUE, lambda tree, iteration: done.append(iteration)))
    assert done[-1] == 7
