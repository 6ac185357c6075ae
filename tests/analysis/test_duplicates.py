"""Near-duplicates worked out by hand, and the quick way held against comparing everything with everything."""

import random
from itertools import combinations, product

import pytest

from cso_lab.analysis.duplicates import Text, between, long_enough, runs, within


def texts(*said: str) -> list[Text]:
    return [Text(str(number), text) for number, text in enumerate(said)]


def test_runs_are_of_words_whatever_their_case_and_punctuation():
    assert runs("I don’t know, WHAT?", 3) == {("i", "don't", "know"), ("don't", "know", "what")}
    assert runs("Thank you!", 3) == {("thank", "you")}
    assert runs(" ... ", 3) == frozenset()


def test_pairs_within_a_set_are_counted_and_what_is_said_word_for_word_counts_as_often():
    # a b c d e | a b c d f: runs abc bcd cde | abc bcd cdf, 2 of 4 are common.
    said = texts("a b c d e", "A b c d e.", "a b c d f", "x y z", "...")
    assert within(said, 3, 0.5) == {
        "pairs": 3,
        "left": {"concerned": 3, "of": 5},
        "examples": [
            {"left": "0", "right": "1", "similarity": 1.0},
            {"left": "0", "right": "2", "similarity": 0.5},
        ],
    }
    assert within(said, 3, 0.51)["pairs"] == 1
    assert within(said, 3, 0.51)["left"] == {"concerned": 2, "of": 5}


def test_leakage_counts_the_texts_of_both_sides():
    train, test = texts("a b c d e", "a b c d e", "p q r s"), texts("a b c d f", "u v w", "p q r s")
    assert between(train, test, 3, 0.5) == {
        "pairs": 3,
        "left": {"concerned": 3, "of": 3},
        "right": {"concerned": 2, "of": 3},
        "examples": [
            {"left": "2", "right": "2", "similarity": 1.0},
            {"left": "0", "right": "0", "similarity": 0.5},
        ],
    }
    assert between(train, [], 3, 0.5)["pairs"] == 0


@pytest.mark.parametrize("similarity", [0.2, 0.5, 0.7, 1.0])
def test_nothing_similar_enough_is_missed(similarity):
    chance = random.Random(0)
    said = texts(*(" ".join(chance.choice("abc") for _ in range(chance.randint(1, 9))) for _ in range(60)))

    def close(one: Text, other: Text) -> bool:
        a, b = runs(one.text, 2), runs(other.text, 2)
        return len(a & b) >= similarity * len(a | b)

    left, right = said[:25], said[25:]
    assert within(said, 2, similarity)["pairs"] == sum(close(*pair) for pair in combinations(said, 2)) > 0
    assert between(left, right, 2, similarity)["pairs"] == sum(close(*pair) for pair in product(left, right)) > 0


def test_short_texts_are_not_compared():
    assert [text.name for text in long_enough(texts("thank you so much", "thank you so much, Sam"), 5)] == ["1"]
