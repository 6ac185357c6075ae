"""The metrics against values worked out by hand, a slow separate version of B, and their degenerate cases."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cso_lab.core.errors import UserError
from cso_lab.core.records import Prediction
from cso_lab.core.strategies import ESCONV, EXTES, format_reply
from cso_lab.evaluation.metrics import (
    batched_f1,
    confusion,
    preference,
    preference_bias,
    rouge_l,
    strategy_scores,
)
from cso_lab.evaluation.score import evaluate_predictions

GOLD = list("AAABBC")
PREDICTED = ["A", "B", None, "B", "A", "C"]


def prediction(gold: str, strategy: str | None, gold_response: str = "take care", response: str = "take care") -> Prediction:
    return Prediction("d", 1, gold, gold_response, strategy, response, response)


def bias(counts) -> float:
    return float(preference_bias(preference(np.array(counts))))


# strategy accuracy


def test_confusion_has_a_column_of_its_own_for_unparsed_replies():
    assert confusion(GOLD, PREDICTED, "ABC").tolist() == [[1, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0]]


def test_strategy_scores_worked_out_by_hand():
    # A: TP 1, FP 1, FN 2 (one unparsed), so F1 2/5; B: TP 1, FP 1, FN 1, so 2/4; C: 1.
    scores = strategy_scores(GOLD, PREDICTED, "ABC")
    assert scores["Q"] == pytest.approx(100 * (0.4 + 0.5 + 1.0) / 3)
    assert scores["Q_W"] == pytest.approx(100 * (3 * 0.4 + 2 * 0.5 + 1 * 1.0) / 6)
    assert scores["strategies"]["A"] == pytest.approx({"precision": 50, "recall": 100 / 3, "f1": 40, "support": 3})


def test_the_macro_average_covers_what_occurs_in_gold_or_predictions():
    assert strategy_scores(GOLD, PREDICTED, "ABCD")["Q"] == pytest.approx(190 / 3)
    with_d = strategy_scores([*GOLD, "C"], [*PREDICTED, "D"], "ABCD")  # C: TP 1, FN 1, so 2/3; D never right
    assert with_d["Q"] == pytest.approx(100 * (0.4 + 0.5 + 2 / 3 + 0.0) / 4)
    assert with_d["strategies"]["D"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_nothing_parsed_scores_zero():
    scores = strategy_scores(["A", "B"], [None, None], "AB")
    assert (scores["Q"], scores["Q_W"]) == (0, 0)


def test_scores_equal_scikit_learns_open_label_f1():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(3)
    for names in ("ABCDEFGH", "ABC"):  # the second leaves five of the eight out
        gold, predicted = rng.choice(list(names), (2, 60)).tolist()
        scores = strategy_scores(gold, predicted, "ABCDEFGH")
        assert scores["Q"] == pytest.approx(100 * f1_score(gold, predicted, average="macro"))
        assert scores["Q_W"] == pytest.approx(100 * f1_score(gold, predicted, average="weighted"))


def test_batched_f1_equals_one_table_at_a_time():
    rng = np.random.default_rng(4)
    tables, singles = [], []
    for size in (5, 20, 80):
        gold = rng.choice(list("ABCDE"), size).tolist()
        predicted = [None if name == "X" else name for name in rng.choice(list("ABCDFX"), size).tolist()]
        tables.append(confusion(gold, predicted, "ABCDEF"))
        scores = strategy_scores(gold, predicted, "ABCDEF")
        singles.append((scores["Q"], scores["Q_W"]))
    q, q_w = batched_f1(np.array(tables))
    assert np.column_stack([q, q_w]) == pytest.approx(np.array(singles))


# preference bias


def slow_preferences(counts) -> list[float]:
    """The update as printed, one number at a time; ZeroDivisionError where it has no value."""
    size = len(counts)
    p = [1.0] * size
    for _ in range(20):
        for i in range(size):
            others = [j for j in range(size) if j != i]
            above = sum(float(counts[j][i]) * p[j] / (p[i] + p[j]) for j in others)
            below = sum(float(counts[i][j]) / (p[i] + p[j]) for j in others)
            p[i] = above / below
    return [size * value / math.fsum(p) for value in p]


def test_two_strategies_by_hand():
    # Predicted wrongly 3 times against 1: p_0 = 3 p_1 after every sweep, so p = (1.5, 0.5).
    assert preference(np.array([[7, 1], [3, 0]])) == pytest.approx([1.5, 0.5])
    assert bias([[7, 1], [3, 0]]) == pytest.approx(0.5)


def test_preferences_the_script_of_kang_et_al_gives():
    counts = [
        [3, 1, 0, 0, 2, 0, 0, 0],
        [5, 2, 1, 0, 0, 0, 0, 0],
        [0, 4, 3, 1, 0, 0, 1, 0],
        [2, 0, 6, 1, 0, 0, 0, 0],
        [0, 0, 0, 3, 9, 1, 0, 1],
        [1, 0, 0, 0, 7, 2, 1, 0],
        [0, 0, 2, 0, 0, 5, 4, 1],
        [3, 0, 0, 0, 1, 0, 2, 6],
    ]
    expected = [3.19041604, 1.56882217, 1.02669495, 0.58743699, 0.95645313, 0.32001935, 0.1719158, 0.17824156]
    assert preference(np.array(counts)) == pytest.approx(expected, abs=2e-8)  # a sweep more or less changes the 7th decimal
    assert bias(counts) == pytest.approx(0.9432445547308239, abs=1e-12)


def test_random_tables_equal_the_slow_version_wherever_it_has_a_value():
    rng = np.random.default_rng(5)
    compared = 0
    for _ in range(300):
        size = int(rng.integers(2, 9))
        counts = rng.poisson(rng.choice([0.3, 1, 5, 30]), (size, size))
        try:
            expected = slow_preferences(counts)
        except ZeroDivisionError:
            continue
        compared += 1
        assert preference(counts) == pytest.approx(expected, abs=1e-10)
    assert compared > 100


def test_many_tables_at_once_equal_one_at_a_time():
    tables = np.random.default_rng(6).poisson(0.7, (50, 8, 8))
    assert preference(tables) == pytest.approx(np.array([preference(table) for table in tables]))


@pytest.mark.parametrize("favourite", [0, 3, 7])
def test_full_collapse_on_one_of_eight_is_sqrt_7(favourite):
    counts = np.zeros((8, 8), dtype=int)
    counts[:, favourite] = [5, 1, 2, 3, 4, 9, 1, 2]
    assert preference(counts) == pytest.approx(8 * np.eye(8)[favourite])
    assert bias(counts) == pytest.approx(math.sqrt(7))


@pytest.mark.parametrize("row", [0, 4, 7])
def test_a_strategy_never_missed_while_others_are_takes_all(row):
    counts = np.full((8, 8), 3)
    counts[row] = 0
    counts[row, row] = 2
    assert bias(counts) == pytest.approx(math.sqrt(7))


def test_collapse_on_a_test_set_without_every_strategy_is_still_sqrt_7():
    counts = np.zeros((8, 8), dtype=int)
    counts[:4, 0] = 6
    assert bias(counts) == pytest.approx(math.sqrt(7))


def test_several_unbounded_strategies_share_by_their_wrong_predictions():
    counts = np.zeros((4, 4), dtype=int)
    counts[2, 0], counts[3, 1] = 3, 1
    assert preference(counts) == pytest.approx([3, 1, 0, 0])


@pytest.mark.parametrize("counts", [np.diag([4, 1, 0, 2, 0, 0, 3, 1]), np.zeros((8, 8), dtype=int)])
def test_nothing_confused_is_no_preference(counts):
    assert preference(counts).tolist() == [1.0] * 8
    assert bias(counts) == 0


def test_strategies_never_predicted_have_preference_zero():
    counts = np.array([[4, 2, 0, 0], [6, 1, 0, 0], [1, 2, 0, 0], [0, 3, 0, 0]])
    # 0 and 1 beat each other 6 : 2; what they take from strategies at zero adds nothing to either once those are zero.
    assert preference(counts) == pytest.approx([3, 1, 0, 0])


def test_a_strategy_preferred_only_to_one_never_predicted_ends_at_zero():
    counts = np.array([[0, 2, 0, 0], [6, 0, 0, 0], [1, 2, 0, 0], [0, 3, 5, 0]])
    assert preference(counts) == pytest.approx([3, 1, 0, 0])


def test_a_strategy_outside_all_confusion_stays_neutral():
    assert preference(np.array([[9, 1, 0], [3, 9, 0], [0, 0, 5]])) == pytest.approx([1.5, 0.5, 1.0])


@settings(max_examples=200, deadline=None)
@given(arrays(int, (8, 8), elements=st.sampled_from([0, 0, 0, 1, 2, 50])))
def test_every_table_has_finite_preferences_that_sum_to_k(counts):
    p = preference(counts)
    assert np.isfinite(p).all() and (p >= 0).all()
    assert p.sum() == pytest.approx(8)
    assert 0 <= preference_bias(p) <= math.sqrt(7) + 1e-12


# ROUGE-L


def test_rouge_l_by_hand():
    # "i am here" in "i am right here now": 3 common words, P = 3/3, R = 3/5, F = 0.75; the second pair shares nothing.
    assert rouge_l(["I am right here now", "yes"], ["i am here!", "no"]) == pytest.approx(37.5)


def test_rouge_l_does_not_stem():
    assert rouge_l(["feelings"], ["feeling"]) == 0


# the whole dict


def test_evaluate_predictions_gathers_every_number():
    v, a = "Emotional Validation", "Affirmation"
    result = evaluate_predictions(
        [
            prediction(v, "emotional validation", "I am right here now", "i am here"),
            prediction("Clarification", "AFFIRMATION"),  # Table 8 maps Clarification onto Emotional Validation
            prediction(a, a, response=format_reply(a, "take care")),
            prediction(a, None, response="no idea"),
            prediction(a, "Small Talk", response="no idea"),
        ],
        EXTES,
    )
    assert list(result) == ["Q", "B", "Q_W", "R-L", "n", "unparsed", "intervals", "strategies"]
    assert (result["n"], result["unparsed"]) == (5, 2)
    # Validation: TP 1, FN 1, so 2/3; Affirmation: TP 1, FP 1, FN 2, so 2/5.
    assert result["Q"] == pytest.approx(100 * (2 / 3 + 2 / 5) / 2)
    assert result["Q_W"] == pytest.approx(100 * (2 * 2 / 3 + 3 * 2 / 5) / 5)
    assert result["R-L"] == pytest.approx(100 * (0.75 + 1 + 1 + 0 + 0) / 5)
    # Affirmation is predicted wrongly once and never missed by a parsed reply: unbounded.
    assert result["B"] == pytest.approx(math.sqrt(7))
    assert list(result["strategies"]) == list(EXTES.names)
    assert result["strategies"][a] == pytest.approx(
        {"precision": 50, "recall": 100 / 3, "f1": 40, "support": 3, "predicted": 2, "preference": 8}
    )


def random_predictions(n: int) -> list[Prediction]:
    rng = np.random.default_rng(7)
    gold, other = rng.choice(ESCONV.names, (2, n)).tolist()
    kept = rng.random(n) < 0.5
    replies = ["take care of you", "please take care", "no"]
    return [
        prediction(g, g if k else o, response=replies[i % 3]) for i, (g, o, k) in enumerate(zip(gold, other, kept, strict=True))
    ]


def test_intervals_are_seeded_and_of_the_right_width():
    predictions = random_predictions(300)
    result = evaluate_predictions(predictions, ESCONV, seed=1)
    assert evaluate_predictions(predictions, ESCONV, seed=1) == result
    assert evaluate_predictions(predictions, ESCONV, seed=2)["intervals"] != result["intervals"]
    for metric in ("Q", "Q_W", "R-L"):
        low, high = result["intervals"][metric]
        assert low < result[metric] < high
    assert 0 <= result["intervals"]["B"][0] < result["intervals"]["B"][1] <= math.sqrt(7) + 1e-12
    # R-L is a mean: its interval is close to +- 1.96 standard errors. F is 2/3, 4/5 and 0 for the three replies in turn.
    error = 100 * np.std([2 / 3, 0.8, 0.0]) / math.sqrt(300)
    low, high = result["intervals"]["R-L"]
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_a_perfect_model_has_intervals_without_width():
    intervals = evaluate_predictions([prediction(name, name) for name in EXTES.names], EXTES)["intervals"]
    assert intervals == {"Q": [100, 100], "B": [0, 0], "Q_W": [100, 100], "R-L": [100, 100]}


def test_nothing_to_score_and_a_foreign_gold_strategy_are_user_errors():
    with pytest.raises(UserError, match="at least one"):
        evaluate_predictions([], EXTES)
    with pytest.raises(UserError, match="line 2: .*'Affirmatoin'.*did you mean 'Affirmation'"):
        evaluate_predictions([prediction("Affirmation", None), prediction("Affirmatoin", None)], EXTES)


# evaluate.Metric


def test_combine_over_local_metrics_works_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import evaluate

    from cso_lab.evaluation.hf_metrics import PreferenceBias, RougeL, StrategyF1

    names = ESCONV.names
    pairs = [(names[0], names[1]), (names[1], names[0]), (names[1], names[0]), (names[2], names[2]), (names[3], None)]
    combined = evaluate.combine([StrategyF1("esconv"), PreferenceBias("esconv"), RougeL("esconv")])
    result = combined.compute(
        references=[format_reply(gold, "I am right here now") for gold, _ in pairs],
        predictions=[format_reply(said or "Small Talk", "i am here") for _, said in pairs],
    )
    expected = evaluate_predictions(
        [
            prediction(gold, said, "I am right here now", "i am here" if said else "(Small Talk) i am here")
            for gold, said in pairs
        ],
        ESCONV,
    )
    assert result == pytest.approx({metric: expected[metric] for metric in ("Q", "Q_W", "B", "R-L")})
    # 0 and 1 beat each other 2 : 1, the rest is in no confusion: p = (4/3, 2/3, 1, ...).
    assert result["B"] == pytest.approx(math.sqrt(2 * (1 / 3) ** 2 / 8))


def test_local_metrics_take_bare_names_one_at_a_time_and_refuse_foreign_references():
    from cso_lab.evaluation.hf_metrics import StrategyF1

    metric = StrategyF1()
    for gold, said in (("Affirmation", "affirmation"), ("Share Information", "")):
        metric.add(reference=gold, prediction=said)
    assert metric.compute() == pytest.approx({"Q": 50, "Q_W": 50})
    with pytest.raises(UserError, match="reference 1"):
        metric.compute(references=["hello"], predictions=["(Affirmation) hello"])
    with pytest.raises(UserError, match="extes, esconv"):
        StrategyF1("unknown")


def test_the_metrics_import_nothing_heavy():
    heavy = {"torch", "transformers", "litellm", "datasets", "sklearn", "evaluate", "rouge_score"}
    code = f"import sys, cso_lab.evaluation.score, cso_lab.evaluation.__main__; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
