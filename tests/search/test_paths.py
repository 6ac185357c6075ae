"""Valid paths and dispreferred siblings (equations 5 and 6), and the extension pass."""

import asyncio

import pytest
from fakes import ScriptedRoles, judged
from small_search import DIALOGUE, hand_made, mcts

from cso_lab.core.records import SeekerReply
from cso_lab.search.paths import dispreferred, scored, valid_paths


def ids(nodes) -> list[int]:
    return [node.id for node in nodes]


@pytest.mark.parametrize(
    ("theta", "min_end_visits", "expected"),
    [
        (0.5, 2, [[0, 1, 4], [0, 1, 5]]),
        (0.5, 3, [[0, 1, 5]]),  # 4 was visited twice
        (0.5, 4, []),
        (0.6, 2, [[0, 1, 4]]),  # Q must lie above theta: 5 has 0.6 itself
        (0.8, 0, []),  # 1 has 0.8
        (-0.1, 2, [[0, 1, 4], [0, 1, 5], [0, 3, 7]]),
    ],
)
def test_valid_paths_are_equation_5(theta, min_end_visits, expected):
    assert [ids(path) for path in valid_paths(hand_made(), theta, min_end_visits)] == expected


def test_one_low_node_spoils_a_path():
    tree = hand_made()
    tree.nodes[1].q = 0.5
    assert valid_paths(tree, 0.5, 2) == []
    tree.nodes[1].q, tree.root.q = 0.8, 0.5
    assert valid_paths(tree, 0.5, 2) == []


def test_dispreferred_siblings_are_equation_6():
    tree = hand_made()
    preferred = {node.id for path in valid_paths(tree, 0.5, 2) for node in path}
    assert preferred == {0, 1, 4, 5}
    assert {node.id: ids(dispreferred(node, 0.5, preferred)) for node in tree.nodes if node.id in preferred} == {
        0: [],
        1: [2],  # 3 was never scored: not a bad one
        4: [6],
        5: [6],
    }
    # below theta is below it: 8 has 0.5, 9 was never expanded
    assert ids(dispreferred(tree.nodes[7], 0.5, preferred)) == []
    assert ids(dispreferred(tree.nodes[7], 0.51, preferred)) == [8]


def test_what_lies_on_a_valid_path_is_dispreferred_nowhere():
    tree = hand_made()
    assert ids(dispreferred(tree.nodes[4], 0.65, {0, 1, 4})) == [5, 6]
    assert ids(dispreferred(tree.nodes[4], 0.65, {0, 1, 4, 5})) == [6]


def test_q_means_something_once_a_node_was_visited_or_scored():
    assert ids(node for node in hand_made().nodes if not scored(node)) == [3, 9]


def test_extending_scores_the_siblings_of_preferred_turns_that_have_no_dispreferred_one():
    roles = ScriptedRoles(
        judge_says={"B": judged(2), "C": judged(1), "C.A": judged(2)}, seeker_says={"A.A": SeekerReply(None, True)}
    )
    search = mcts(roles, rollout_rounds=1)
    tree = asyncio.run(search.init_from_gold(DIALOGUE))
    tree.nodes[6].supporter, tree.nodes[6].scores, tree.nodes[6].q, tree.nodes[6].n = "s", judged(2), -1.0, 1
    roles.calls.clear()
    asyncio.run(search.extend(DIALOGUE, tree, theta=0.5, min_end_visits=2))
    # The gold path is valid. Its second turn has the dispreferred C (6); its first has none, so B (2) and C (3) are simulated:
    # (2 -> -1, 4 -> 1) and (1 -> -2, 2 -> -1).
    assert {node.id: (node.q, node.n, node.scores) for node in tree.nodes if node.scores} == {
        2: (pytest.approx(0), 0, judged(2)),
        3: (pytest.approx(-1.5), 0, judged(1)),
        6: (-1, 1, judged(2)),
    }
    assert roles.counts() == {"supporter": 4, "seeker": 2, "strategist": 2, "judge": 4}
    assert (tree.root.q, tree.root.n, len(tree.nodes)) == (1, 100, 7)
    assert not tree.nodes[4].expanded
