"""The paired bootstrap against values worked out by hand, and what it is given against the scores it repeats."""

import numpy as np
import pytest

from cso_lab.core.records import Prediction
from cso_lab.core.strategies import EXTES
from cso_lab.evaluation.paired import Difference, PairedBootstrap, Turns, weighted_scores
from cso_lab.evaluation.score import evaluate_predictions


def run(gold, predicted, rouge, keys=None, counted=None, strategies=2):
    keys = keys or [("d", turn) for turn in range(len(gold))]
    columns = {
        "dialogue": [d for d, _ in keys],
        "turn": [t for _, t in keys],
        "gold": gold,
        "predicted": predicted,
        "R-L": rouge,
    }
    return Turns.from_columns(columns | ({"counted": counted} if counted else {}), strategies)


def compare(ours, theirs):
    return PairedBootstrap().differences(ours, theirs)


def test_scores_of_weighted_turns_by_hand():
    # Gold 0 0 1 1, predicted 0 1 1 nothing. As they are: strategy 0 has F1 2*1/(2+1) = 2/3, strategy 1 2*1/(2+2) = 1/2: Q = 58.33.
    # With the first turn twice and the second left out: 0 is hit 2 of 2, F1 = 1; 1 is hit 1 of 2, predicted once, F1 = 2/3: Q = 83.33.
    scores = weighted_scores(run([0, 0, 1, 1], [0, 1, 1, None], [10, 20, 30, 40]), np.array([[1, 1, 1, 1], [2, 0, 1, 1]]))
    assert scores["Q"] == pytest.approx([100 * 7 / 12, 100 * 5 / 6])
    assert scores["Q_W"] == pytest.approx([100 * 7 / 12, 100 * 5 / 6])  # both strategies are gold twice
    assert scores["R-L"] == pytest.approx([25, (10 + 10 + 30 + 40) / 4])
    # As they are, 1 was predicted where 0 was gold and never missed for 0: it takes all preference, p = (0, 2), B = 1. Without: B = 0.
    assert scores["B"] == pytest.approx([1, 0])


def test_the_turns_of_metrics_json_repeat_its_scores():
    names, chance = EXTES.names, np.random.default_rng(0)
    predictions = [
        Prediction("d", n, str(names[g]), "a b c", None if p == 8 else str(names[p]), "a b d e", "")
        for n, (g, p) in enumerate(zip(chance.integers(0, 8, 60), chance.integers(0, 9, 60), strict=True))
    ]
    metrics = evaluate_predictions(predictions, EXTES, per_turn=True)
    turns = Turns.from_columns(metrics["per_turn"], len(metrics["strategies"]))
    repeated = weighted_scores(turns, np.ones((1, 60)))
    for metric in ("Q", "B", "Q_W", "R-L"):
        assert repeated[metric][0] == pytest.approx(metrics[metric], abs=0.01)
    assert "per_turn" not in evaluate_predictions(predictions, EXTES)


def test_pairing_takes_out_what_both_have_in_common():
    """Turns differ by far more than the models do; on each of them ours is 5 better."""
    theirs = [0, 90, 10, 80, 20]
    found, n = compare([run([0] * 5, [0] * 5, [r + 5 for r in theirs])], [run([0] * 5, [0] * 5, theirs)])
    assert n == 5
    assert found["R-L"].value == found["R-L"].low == found["R-L"].high == pytest.approx(5)
    assert found["R-L"].significant
    assert found["Q"] == Difference(0, 0, 0) and not found["Q"].significant


def test_an_interval_by_hand():
    # Differences of 0 and 10 on two turns: a resample is worth 0, 5 or 10 with chances 1/4, 1/2, 1/4, so 95% of them span 0 to 10.
    found, _ = compare([run([0, 0], [0, 0], [0, 10])], [run([0, 0], [0, 0], [0, 0])])
    assert found["R-L"] == Difference(5, 0, 10) and not found["R-L"].significant


def test_turns_are_paired_by_dialogue_and_number_whatever_their_order():
    keys = [("a", 1), ("a", 3), ("b", 1)]
    ours = run([0, 1, 0], [0, 1, 1], [1, 2, 3], keys)
    theirs = run([0, 0, 1], [1, 0, 1], [3, 1, 2], [("b", 1), ("a", 1), ("a", 3)])
    found, n = compare([ours], [theirs])
    assert n == 3 and {difference.value for difference in found.values()} == {0}
    found, n = compare([ours], [run([1, 0], [1, 1], [0, 0], [("a", 3), ("c", 1)])])
    assert n == 1 and found["R-L"].value == 2


def test_several_seeds_are_worth_their_mean():
    base = run([0, 1], [0, 1], [10, 10])
    found, _ = compare([run([0, 1], [0, 1], [20, 20]), run([0, 1], [0, 1], [40, 40])], [base])
    assert found["R-L"].value == found["R-L"].low == pytest.approx(20)


def test_strategies_are_taken_from_the_counted_turns_and_rouge_from_all():
    ours = run([0, 1, 1], [0, 1, 0], [30, 30, 60], counted=[True, True, False])
    scores = weighted_scores(ours, np.ones((1, 3)))
    assert scores["Q"] == pytest.approx([100]) and scores["R-L"] == pytest.approx([40])


@pytest.mark.parametrize(
    "other",
    [
        run([0, 0], [0, 0], [1, 1], [("x", 0), ("x", 1)]),
        run([0, 0], [0, 0], [1, 1], strategies=3),
        run([1, 0], [0, 0], [1, 1]),
        run([0, 0], [0, 0], [1, 1], counted=[True, False]),
    ],
)
def test_what_was_not_asked_the_same_is_not_compared(other):
    assert compare([run([0, 0], [0, 0], [1, 1])], [other]) == ({}, 0)
