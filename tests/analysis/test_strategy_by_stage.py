"""Strategies over the conversation, counted by hand."""

import pytest
from small_search import seeker, supporter

from cso_lab.analysis.strategy_by_stage import stage, strategies_by_stage


@pytest.mark.parametrize(
    ("n", "stages"),
    [
        (1, [5]),
        (2, [3, 5]),
        (4, [1, 3, 4, 5]),
        (6, [1, 2, 3, 4, 5, 5]),  # 6 k / N is k, and the last one would be a seventh stage
        (12, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5]),
        (16, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]),
    ],
)
def test_the_stage_is_a_sixth_of_the_way_bounded_at_the_last(n, stages):
    assert [stage(k, n) for k in range(1, n + 1)] == stages


def test_shares_are_of_the_labelled_turns_of_a_stage():
    four = [seeker("k"), supporter("A", "s"), seeker("k"), supporter("B", "s")]  # stages 1, 3, 4, 5
    two = [seeker("k"), supporter("A", "s")]  # stages 3, 5
    greeting = [supporter(None, "hello"), seeker("k"), supporter("B", "s"), seeker("k")]  # stages 1, 3, 4, 5
    found = strategies_by_stage([four, two, greeting, two], ["A", "B", "C"])
    assert found["stages"] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert found["turns"] == [0, 0, 0, 1, 1, 3]
    third = 100 / 3
    assert found["percent"] == {
        "A": [None, None, None, 100, 0, 2 * third],
        "B": [None, None, None, 0, 100, third],
        "C": [None, None, None, 0, 0, 0],
    }
