"""Valid paths and what is dispreferred beside them: equations 5 and 6, and the pass that scores siblings."""

import asyncio

import pytest
from fakes import ScriptedRoles, judged
from small_search import DIALOGUE, mcts

from cso_lab.search.mcts import SeekerReply


def test_extending_scores_the_siblings_of_preferred_turns_that_have_no_dispreferred_one():
    roles = ScriptedRoles(
        judge_says={"B": judged(2), "C": judged(1), "C.A": judged(2)}, seeker_says={"A.A": SeekerReply(None, True)}
    )
    search = mcts(roles, rollout_rounds=1)
    tree = asyncio.run(search.plant(DIALOGUE))
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
