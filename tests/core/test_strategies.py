"""The two sets of strategies, Table 8, and the "(Strategy) text" form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cso_lab.core.errors import UserError
from cso_lab.core.strategies import ESCONV, EXTES, SETS, format_reply, parse_reply, strategy_set

# Table 8 of the paper, row by row
TABLE_8 = {
    "Emotional Validation": ["Reflective Statements", "Clarification", "Emotional Validation", "Normalize Experiences"],
    "Affirmation": ["Affirmation", "Offer Hope"],
    "Collaborative Planning": ["Collaborative Planning", "Suggest Options", "Stress Management", "Promote Self-Care Practices"],
    "Empathetic Statements": ["Empathetic Statements"],
    "Avoid Judgment and Criticism": ["Avoid Judgment and Criticism"],
    "Provide Different Perspectives": ["Provide Different Perspectives"],
    "Reframe Negative Thoughts": ["Reframe Negative Thoughts"],
    "Share Information": ["Share Information"],
}
LABELS = [(label, name) for name, labels in TABLE_8.items() for label in labels]


def test_the_fifteen_labels_of_table_8():
    assert len(LABELS) == 15
    assert {label: EXTES.find(label) for label, _ in LABELS} == dict(LABELS)
    assert set(EXTES.names) == set(TABLE_8)
    assert {*EXTES.names, *EXTES.aliases} == {label for label, _ in LABELS}


@pytest.mark.parametrize("strategies", SETS.values())
def test_eight_strategies_each_described(strategies):
    assert len(strategies.names) == 8
    assert all(strategies.descriptions.values()) and len(set(strategies.descriptions.values())) == 8


@pytest.mark.parametrize(
    "fold", [str.lower, str.upper, str.title, lambda label: f"  {label} ", lambda label: label.replace(" ", "_")]
)
def test_spelling_that_does_not_matter(fold):
    assert [EXTES.find(fold(label)) for label, _ in LABELS] == [name for _, name in LABELS]


def test_more_spellings():
    assert EXTES.find("Avoid Judgment & Criticism") == "Avoid Judgment and Criticism"
    assert EXTES.find("promote self care practices") == "Collaborative Planning"
    assert EXTES.find("**Affirmation:**") == "Affirmation"
    assert ESCONV.find("self disclosure") == "Self-disclosure"
    assert ESCONV.find("Reflection of  feelings") == "Reflection of Feelings"


@pytest.mark.parametrize("label", ["Others", "", "  ", "Hypnosis", "Affirm", "Affirmation and more", "Question"])
def test_unknown_in_extes(label):
    assert EXTES.find(label) is None


def test_others_is_a_strategy_of_esconv():
    assert ESCONV.find("others") == ESCONV.find("Other") == "Others"


def test_sets_by_name():
    assert strategy_set("extes") is EXTES and strategy_set("esconv") is ESCONV
    with pytest.raises(UserError, match="extess.*did you mean 'extes'.*esconv"):
        strategy_set("extess")


TEXT = st.text(max_size=60).map(str.strip)
MARKS = "\"'*`:"


@given(st.sampled_from([(s, name) for s in SETS.values() for name in s.names]), TEXT.filter(lambda text: text[:1] not in MARKS))
def test_parse_undoes_format(case, text):
    strategies, name = case
    assert parse_reply(format_reply(name, text), strategies) == (name, text)


@pytest.mark.parametrize("text", ['"No" is an answer.', "*smiles* Well done.", "'Tis hard."])
def test_marks_at_the_beginning_of_the_text_belong_to_it(text):
    assert parse_reply(format_reply("Affirmation", text), EXTES) == ("Affirmation", text)


@pytest.mark.parametrize(
    "reply",
    [
        "(Affirmation) Well done.",
        "[Affirmation] Well done.",
        "( affirmation )Well done.",
        "**(Affirmation)** Well done.",
        "`(Affirmation)`: Well done.",
        "\n (AFFIRMATION):\n Well done.\n",
        "(Offer Hope) Well done.",
        "(Affirmation] Well done.",
    ],
)
def test_labels_in_odd_brackets(reply):
    assert parse_reply(reply, EXTES) == ("Affirmation", "Well done.")


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Well done.",
        "Affirmation: Well done.",
        "() Well done.",
        "(Others) Well done.",
        "(Question) Well done.",
        "(Affirmation Well done.",
        "((Affirmation)) Well done.",
        "Well done. (Affirmation)",
        "(" + "x" * 200 + ") Well done.",
    ],
)
def test_without_a_known_label_the_reply_is_whole(reply):
    assert parse_reply(f" {reply}\n", EXTES) == (None, reply)


@given(st.text(max_size=60))
def test_any_reply_parses(reply):
    strategy, text = parse_reply(reply, EXTES)
    assert strategy is None or strategy in EXTES.names
    assert text in reply and text == text.strip()


def test_text_may_hold_brackets():
    assert parse_reply("(Affirmation) (Share Information) both", EXTES) == ("Affirmation", "(Share Information) both")
