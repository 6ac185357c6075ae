"""What the search asks its role players: sample keys, any order of replies, and failed questions."""

import asyncio
import random
from collections import Counter

import pytest
from fakes import NEVER, ScriptedRoles, judged, path_of
from small_search import DIALOGUE, K0, K1, S1, S2, mcts, searched, supporter

from cso_lab.core.errors import UserError
from cso_lab.core.records import SeekerReply
from cso_lab.llm.errors import RoleFailure

# sample keys


def test_with_cached_replies_every_question_is_about_the_state_alone():
    roles = ScriptedRoles()
    searched(roles, cache_replies=True, min_iterations=5, max_iterations=5)
    assert {draw for _, _, draw in roles.calls} == {""}


def test_without_cached_replies_every_question_is_sampled_anew():
    roles = ScriptedRoles(show_draw=True)
    searched(roles, min_iterations=12, max_iterations=12)
    asked = Counter((role, path, draw) for role, path, draw in roles.calls)
    assert max(asked.values()) == 1
    # a state met in a rollout is asked about again when the tree comes to it
    draws = {draw for role, path, draw in roles.calls if (role, path) == ("supporter", "B.A.A")}
    assert len(draws) == 2


# order of answers


def test_the_tree_does_not_depend_on_the_order_of_answers():
    script = dict(
        strategist_says={"": {"A": 2, "B": 3, "C": 4}, "B": {"C": 5, "B": 1}, "C.A": {"B": 2, "C": 2}},
        judge_says={"B.C": judged(2), "B.C.A": judged(1), "C.A": judged(3), "A.A": judged(0)},
        seeker_says={"C.A.B": SeekerReply(None, True)},
    )
    settings = dict(rollout_rounds=3, min_iterations=12, max_iterations=12)
    patient = searched(ScriptedRoles(show_draw=True, **script), **settings).to_json()
    for seed in range(5):
        roles = ScriptedRoles(show_draw=True, slow=random.Random(seed), **script)
        assert searched(roles, **settings).to_json() == patient


# errors


@pytest.mark.parametrize("error", [RoleFailure("no usable answer"), UserError("no key")])
@pytest.mark.parametrize(
    ("table", "path"),
    [
        ("strategist_says", ""),  # init_from_gold
        ("strategist_says", "A"),
        ("supporter_says", "B"),  # expansion
        ("seeker_says", "B"),
        ("strategist_says", "B"),
        ("supporter_says", "B.A"),  # child
        ("judge_says", "B.A"),
        ("strategist_says", "B.A"),  # rollout
        ("supporter_says", "B.A.A"),
        ("seeker_says", "B.A.A"),
        ("judge_says", "B.A.A"),
    ],
)
def test_the_error_of_a_role_is_raised_unchanged(table, path, error):
    with pytest.raises(type(error)) as caught:
        searched(ScriptedRoles(**{table: {path: error}}))
    assert caught.value is error


def test_when_one_question_fails_the_others_are_cancelled():
    roles = ScriptedRoles(judge_says={"B.A": NEVER, "B.A.A": RoleFailure("no")})
    with pytest.raises(RoleFailure):
        searched(roles)
    assert ("judge", "B.A") in roles.cancelled


def test_cancelling_a_search_cancels_its_questions():
    roles = ScriptedRoles(judge_says={"B.A": NEVER})

    async def cancelled_search():
        async with asyncio.timeout(0.1):
            await mcts(roles).search(DIALOGUE)

    with pytest.raises(TimeoutError):
        asyncio.run(cancelled_search())
    assert roles.cancelled == [("judge", "B.A")]


def test_paths_of_the_script():
    assert path_of((K0, S1, K1, S2)) == "A.B" and path_of((supporter(None, "hi"), K0)) == "-"
