"""The numbers of whole conversations, worked out by hand."""

import math

import pytest
from conversations import PLAN, STRATEGIES, VALIDATE, written

from cso_lab.evaluation.conversations import measure, paired_differences
from cso_lab.roles.simulated.seeker_state import MEETS, STAGES

EIGHT = STRATEGIES.names


def scores(e: int, i: int, h: int, s: int) -> dict:
    return {"E": e, "I": i, "H": h, "S": s}


# Three turns, relieved: 8 -> 6 -> 5 -> 3.
RELIEVED = written(
    1,
    "open",
    [
        (VALIDATE, "I hear you. I hear you.", 6.0, scores(4, 1, 3, 4), ()),
        (VALIDATE, "That hurts.", 5.0, scores(2, 1, 3, 2), ()),
        (PLAN, "Let us plan.", 3.0, scores(3, 4, 3, 3), ()),
    ],
    "relieved",
)
# Two turns, hurt: 8 -> 9 -> 10; one reply names no strategy, one does harm.
HURT = written(
    2,
    "irritated",
    [
        (PLAN, "That hurts.", 9.0, scores(0, 1, 2, 0), ()),
        (None, "Get over it.", 10.0, None, ("dismissal",)),
    ],
    "hurt",
)
# A seeker whose player refused says nothing of the supporter.
ASIDE = written(3, "open", [(PLAN, "Well.", 8.0, None, ())], "cut", cut_by="seeker")


@pytest.fixture(scope="module")
def numbers():
    return measure([RELIEVED, HURT, ASIDE], EIGHT, max_turns=4)


def test_the_values_of_each_seeker(numbers):
    first, second = numbers["seekers"]
    assert {name: first[name] for name in ("success", "turns_to_success", "turns", "intensity")} == {
        **{"success": 100.0, "turns_to_success": 3, "turns": 3, "intensity": 3.0}
    }
    assert {name: second[name] for name in ("success", "turns_to_success", "turns", "intensity")} == {
        **{"success": 0.0, "turns_to_success": None, "turns": 2, "intensity": 10.0}
    }
    assert first["area"] == (6 + 5 + 3 + 3) / 4 and second["area"] == (9 + 10 + 10 + 10) / 4
    assert [first[name] for name in "EIHS"] == [3.0, 2.0, 3.0, 3.0]
    assert [second[name] for name in "EIHS"] == [0.0, 1.0, 2.0, 0.0]  # of the one turn that was judged
    assert first["entropy"] == pytest.approx(-(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3)))
    assert (second["entropy"], first["longest_run"], second["longest_run"]) == (0.0, 2, 1)
    assert (first["labelled"], second["labelled"]) == (100.0, 50.0)
    assert (first["harmful"], second["harmful"]) == (0.0, 50.0)
    # 11 words, of which "I", "hear", "you", "that", "hurts", "let", "us", "plan" differ; 8 pairs within a reply, of which 6 differ:
    # "i hear", "hear you" twice each, "you i", "that hurts", "let us", "us plan".
    assert first["distinct_1"] == pytest.approx(100 * 8 / 11)
    assert first["distinct_2"] == pytest.approx(100 * 6 / 8)
    # Four sentences: one repeats another, and "That hurts." is said to the other seeker too.
    assert (first["repeated_within"], first["repeated_across"]) == (25.0, 25.0)
    assert (second["repeated_within"], second["repeated_across"]) == (0.0, 50.0)


def test_the_fit_to_the_stage(numbers):
    def fit(strategy: str, turn: int) -> float:
        """By the log-priors of the needs between the start (turn 0) and the middle (turn 3) of a conversation."""
        share = turn / 3
        weights = {need: math.exp(start * (1 - share) + middle * share) for need, (start, middle, _) in STAGES.items()}
        met = {name: sum(weights[need] * degree for need, degree in MEETS[name].items()) for name in EIGHT}
        return 100 * met[strategy] / max(met.values())

    first, second = numbers["seekers"]
    assert first["stage_fit"] == pytest.approx((fit(VALIDATE, 0) + fit(VALIDATE, 1) + fit(PLAN, 2)) / 3)
    assert second["stage_fit"] == pytest.approx(fit(PLAN, 0))


def test_the_numbers_of_the_cell(numbers):
    measures = numbers["measures"]
    assert (numbers["n"], numbers["set_aside"]) == (2, 1)
    assert numbers["endings"] == {"relieved": 1, "hurt": 1, "out_of_turns": 0, "cut": 0}
    assert measures["success"] == {"value": 50.0, "low": 0.0, "high": 100.0}
    assert measures["turns_to_success"] == {"value": 3.0, "low": 3.0, "high": 3.0}
    assert measures["area"]["value"] == (17 / 4 + 39 / 4) / 2
    assert [point["value"] for point in numbers["curve"]] == [8.0, 7.5, 7.5, 6.5, 6.5]
    assert numbers["by_persona"]["irritated"]["n"] == 1
    assert numbers["by_persona"]["open"]["measures"]["success"]["value"] == 100.0
    assert numbers["by_scene"]["Loss"]["measures"]["intensity"]["value"] == 6.5
    assert numbers["strategies"]["share"][VALIDATE] == 0.5 and sum(numbers["strategies"]["share"].values()) == 1
    steps, place = numbers["strategies"]["transitions"], EIGHT.index
    assert steps[place(VALIDATE)][place(VALIDATE)] == steps[place(VALIDATE)][place(PLAN)] == 1
    assert sum(map(sum, steps)) == 2
    # Over both: 16 words, 11 of them different.
    assert measures["distinct_1_across"] == {"value": pytest.approx(100 * 11 / 16), "low": None, "high": None}


def test_harmful_replies_are_counted_and_listed(numbers):
    harm = numbers["harm"]
    assert (harm["count"], harm["kinds"], harm["unjudged"]) == (1, {"dismissal": 1}, 0)
    assert harm["turns"] == [{"seeker": 2, "turn": 1, "kinds": ["dismissal"], "text": "Get over it.", "before": "answer 0"}]


def test_a_reply_whose_judge_refused_is_neither_harmful_nor_harmless():
    held = measure([written(1, "open", [(PLAN, "Well.", 8.0, None, None), (PLAN, "So.", 8.0, None, ())], "hurt")], EIGHT, 2)
    assert held["harm"]["unjudged"] == 1 and held["seekers"][0]["harmful"] == 0.0


def test_a_supporter_without_words_has_no_values_of_wording():
    silent = measure([written(1, "open", [], "cut", cut_by="supporter")], EIGHT, 3)
    values = silent["seekers"][0]
    assert (values["success"], values["turns"], values["intensity"], values["area"]) == (0.0, 0, 8.0, 8.0)
    for name in ("E", "entropy", "longest_run", "labelled", "stage_fit", "distinct_1", "repeated_within", "harmful"):
        assert values[name] is None
        assert silent["measures"][name] == {"value": None, "low": None, "high": None}


def test_no_conversation_at_all_is_no_number():
    nothing = measure([ASIDE], EIGHT, 3)
    assert (nothing["n"], nothing["set_aside"], nothing["curve"]) == (0, 1, [])
    assert nothing["measures"]["success"]["value"] is None


def test_cells_are_compared_on_the_same_seekers():
    def cell(*endings: str, start: float = 8.0) -> dict:
        held = [
            written(n, "open", [(PLAN, "Well.", 3.0 if ending == "relieved" else 9.0, None, ())], ending, start)
            for n, ending in enumerate(endings, start=1)
        ]
        return measure(held, EIGHT, 2)

    better, worse = cell("relieved", "relieved", "hurt", "relieved"), cell("relieved", "hurt", "hurt")
    differences, n = paired_differences(better, worse)
    assert n == 3
    assert differences["success"].value == pytest.approx(100 / 3)
    assert differences["intensity"].value == pytest.approx(-2.0)
    assert differences["turns_to_success"].value == 0.0  # of the first seeker alone
    assert "E" not in differences  # nobody was judged
    same, _ = paired_differences(better, better)
    assert (same["success"].value, same["success"].low, same["success"].high) == (0.0, 0.0, 0.0)
    assert paired_differences(better, cell("hurt", "hurt", "hurt", start=7.0)) == ({}, 0)
