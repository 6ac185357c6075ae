"""What tells preferred from dispreferred replies: sources of the pairs, and classifiers on words, strategies and both."""

import random

import pytest

from cso_lab.analysis.distinguishing import distinguishing
from cso_lab.preferences.escpro import EscPro
from cso_lab.reporting.dataset_tables import inspection_tables
from cso_lab.search.tree import Tree

SAME = "I hear what you say"


def tree(number: int, gold_text: str, other_text: str, bad_text: str, bad_strategies=("B", "C"), gold: bool = True) -> Tree:
    """A tree of one turn with a gold reply in A, another good one in D, and bad ones."""
    made = Tree(f"d{number}", "", "")
    root = made.add(None, None, 1.0, q=1.0, n=9, seeker=f"I am {number}", gold=gold)
    made.add(root, "A", 0.4, q=1.0, n=9, supporter=gold_text, end=True, gold=gold)
    made.add(root, "D", 0.2, q=0.8, n=5, supporter=other_text, end=True)
    for strategy in bad_strategies:
        made.add(root, strategy, 0.2, q=-1.0, n=3, supporter=bad_text)
    return made


def found(trees):
    result = distinguishing(EscPro(theta=0.5, min_end_visits=2)(trees))
    return result, {(group["preferred"], group["dispreferred"]): group for group in result["groups"]}


def test_the_style_of_the_gold_replies_gives_their_pairs_away_and_no_others():
    _, groups = found([tree(n, "Prose of the corpus", SAME, SAME) for n in range(10)])
    assert {kind: group["pairs"] for kind, group in groups.items()} == {
        (None, None): 40,
        ("gold", "supporter"): 20,
        ("supporter", "supporter"): 20,
    }
    accuracy = {kind: group["words"]["accuracy"] for kind, group in groups.items()}
    assert accuracy == {(None, None): 75, ("gold", "supporter"): 100, ("supporter", "supporter"): 50}
    assert groups["gold", "supporter"]["words"]["interval"] == [100, 100]
    # A and D are always good and B and C always bad
    assert all(group["strategies"]["accuracy"] == group["both"]["accuracy"] == 100 for group in groups.values())


def test_what_says_nothing_is_a_matter_of_chance_in_dialogues_that_were_held_out():
    rng, words = random.Random(0), [f"word{n}" for n in range(30)]

    def line():
        return " ".join(rng.sample(words, 4))

    trees = [tree(n, line(), line(), line(), bad_strategies=("A", "D")) for n in range(60)]
    result, groups = found(trees)
    assert result["dialogues"] == 60 and result["folds"] == 5
    for kind in ("words", "both"):
        low, high = groups[None, None][kind]["interval"]
        assert low < 50 < high and high - low < 30
    # A against A and D, D against A and D: the strategies of the pairs are the same on both sides
    assert groups[None, None]["strategies"]["accuracy"] == pytest.approx(50, abs=15)


def test_texts_without_words_and_too_few_dialogues_have_no_answer_and_do_no_harm():
    _, groups = found([tree(n, "...", "!", "?") for n in range(3)])
    assert groups[None, None]["words"]["accuracy"] == 50
    paths = EscPro(theta=0.5, min_end_visits=2)([tree(0, "a", "b", "c")])
    assert distinguishing(paths) is None and distinguishing([]) is None
    assert inspection_tables({"distinguishing": None}) == []


def test_where_no_search_marked_gold_turns_the_sources_are_unknown_and_the_table_has_one_row():
    _, groups = found([tree(n, "Prose", SAME, SAME, gold=False) for n in range(4)])
    assert list(groups) == [(None, None)]
    result, _ = found([tree(n, "Prose of the corpus", SAME, SAME) for n in range(10)])
    (table,) = inspection_tables({"distinguishing": result})
    assert table.rows[0] == ["all", "40", "75.0 (75.0 to 75.0)", "100.0 (100.0 to 100.0)", "100.0 (100.0 to 100.0)"]
    assert [row[0] for row in table.rows[1:]] == [
        "of the gold dialogue, against one of the supporter role",
        "of the supporter role, against one of the supporter role",
    ]
