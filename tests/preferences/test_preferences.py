"""From a hand-made tree to rows: pairs, SFT and KTO rows, and the counts of Table 5."""

import pytest
from small_search import ABC, hand_made

from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn, prompt_messages
from cso_lab.preferences.escpro import EscPro
from cso_lab.preferences.rows import kto_rows, pair_rows, prompt_rows, sft_rows
from cso_lab.preferences.statistics import strategy_counts, table5

FIRST = (Turn(SEEKER, "k0"),)
SECOND = (*FIRST, Turn(SUPPORTER, "a", "A"), Turn(SEEKER, "k1"))


@pytest.fixture
def paths():
    return EscPro(theta=0.5, min_end_visits=2)([hand_made()])


def replies(*turns: str) -> list[list[dict]]:
    return [[{"role": "assistant", "content": turn}] for turn in turns]


def test_a_path_is_its_choices_with_what_is_dispreferred_in_their_place(paths):
    assert [[(c.preferred.id, c.history, [n.id for n in c.negatives]) for c in path.choices] for path in paths] == [
        [(1, FIRST, [2]), (4, SECOND, [6])],
        [(1, FIRST, [2]), (5, SECOND, [6])],
    ]
    assert [(path.dialogue, path.opening.id) for path in paths] == [("t", 0), ("t", 0)]


def test_a_pair_two_paths_share_is_one_row(paths):
    rows = pair_rows(paths, ABC)
    assert [row["prompt"] for row in rows] == [prompt_messages(history, ABC) for history in (FIRST, SECOND, SECOND)]
    assert [row["chosen"] for row in rows] == replies("(A) a", "(A) a a", "(B) a b")
    assert [row["rejected"] for row in rows] == replies("(B) b", "(C) a c", "(C) a c")
    assert [(row["chosen_strategy"], row["rejected_strategy"], row["q_chosen"], row["q_rejected"]) for row in rows] == [
        ("A", "B", 0.8, -1.0),
        ("A", "C", 0.7, 0.1),
        ("B", "C", 0.6, 0.1),
    ]
    assert {row["dialogue"] for row in rows} == {"t"}


def test_the_history_of_a_prompt_shows_the_supporters_strategies(paths):
    *_, supporter, seeker = pair_rows(paths, ABC)[1]["prompt"]
    assert (supporter, seeker) == ({"role": "assistant", "content": "(A) a"}, {"role": "user", "content": "k1"})


def test_sft_rows_are_the_preferred_turns_once_each(paths):
    rows = sft_rows(paths, ABC)
    assert [row["completion"] for row in rows] == replies("(A) a", "(A) a a", "(B) a b")
    assert [row["strategy"] for row in rows] == ["A", "A", "B"]
    assert [len(row["prompt"]) for row in rows] == [len(prompt_messages(history, ABC)) for history in (FIRST, SECOND, SECOND)]


def test_prompts_are_the_states_with_a_preferred_turn_and_what_the_tree_knows_of_them(paths):
    rows = prompt_rows(paths, ABC)
    assert [row["prompt"] for row in rows] == [prompt_messages(history, ABC) for history in (FIRST, SECOND)]
    assert [row["preferred"] for row in rows] == [["A"], ["A", "B"]]
    assert [row["values"] for row in rows] == [{"A": 0.8, "B": -1.0}, {"A": 0.7, "B": 0.6, "C": 0.1}]
    assert {row["dialogue"] for row in rows} == {"t"}


def test_kto_rows_are_the_halves_of_the_pairs_once_each(paths):
    rows = kto_rows(pair_rows(paths, ABC))
    assert [(row["completion"], row["label"], row["strategy"]) for row in rows] == [
        (reply, label, strategy)
        for reply, label, strategy in zip(
            replies("(A) a", "(B) b", "(A) a a", "(C) a c", "(B) a b"),
            (True, False, True, False, True),
            ("A", "B", "A", "C", "B"),
            strict=True,
        )
    ]


def test_table_5_per_path_and_distinct(paths):
    seed = [Dialogue("d", "", "", (Turn(SEEKER, "one two three"), Turn(SUPPORTER, "four", "A")))]
    found = table5(seed, paths)
    assert found["seed"] == {"dialogues": 1, "utterances": 2, "mean_dialogue_utterances": 2.0, "mean_utterance_words": 2.0}
    # Each of two paths: two seeker turns (k0, k1), two preferred turns (a; a a or a b), two dispreferred ones (b; a c).
    per_path = found["per_path"]
    assert [per_path[part]["utterances"] for part in ("seeker", "preferred", "dispreferred", "all")] == [4, 4, 4, 12]
    assert [per_path[part]["mean_utterance_words"] for part in ("seeker", "preferred", "dispreferred")] == [1.0, 1.5, 1.5]
    assert (per_path["all"]["dialogues"], per_path["all"]["mean_dialogue_utterances"]) == (2, 4.0)
    assert per_path["all"]["mean_utterance_words"] == pytest.approx(16 / 12)
    # Once each: k0, k1; a, a a, a b; b, a c.
    distinct = found["distinct"]
    assert [distinct[part]["utterances"] for part in ("seeker", "preferred", "dispreferred", "all")] == [2, 3, 2, 7]
    assert [distinct[part]["mean_utterance_words"] for part in ("seeker", "preferred", "dispreferred")] == pytest.approx(
        [1, 5 / 3, 3 / 2]
    )
    assert (distinct["all"]["dialogues"], distinct["all"]["mean_dialogue_utterances"]) == (1, 5.0)


def test_without_a_valid_path_there_are_no_rows_and_no_means():
    paths = EscPro(theta=0.5, min_end_visits=4)([hand_made()])
    assert (paths, pair_rows(paths, ABC), sft_rows(paths, ABC), kto_rows([])) == ([], [], [], [])
    assert table5([], paths)["per_path"]["all"] == {
        "dialogues": 0,
        "utterances": 0,
        "mean_dialogue_utterances": None,
        "mean_utterance_words": None,
    }


def test_strategies_are_counted_in_the_seed_and_among_distinct_pairs(paths):
    seed = [Dialogue("d", "", "", (Turn(SUPPORTER, "hi"), Turn(SEEKER, "k"), Turn(SUPPORTER, "s", "C")))]
    assert strategy_counts(seed, pair_rows(paths, ABC)) == {
        "seed": {"C": 1},
        "chosen": {"A": 2, "B": 1},
        "rejected": {"B": 1, "C": 2},
    }
