"""Every form in which a supporter may reply, and the replies that must be rejected."""

import pytest
from hypothesis import given
from roles.reply_examples import ANY_TEXT

from cso_lab.core.strategies import EXTES
from cso_lab.llm.errors import ParseError
from cso_lab.roles.parsing import parse_supporter


@pytest.mark.parametrize(
    "reply",
    [
        "You did well.",
        '"You did well."',
        "Supporter: You did well.",
        "(Affirmation) You did well.",
        "[Affirmation] You did well.",
        "**(Affirmation)** You did well.",
        "(affirmation): You did well.",
        '"(Affirmation) You did well."',
        "Supporter (Affirmation): You did well.",
        "Supporter: (Affirmation) You did well.",
        "(Affirmation) Supporter: You did well.",
    ],
)
def test_words_without_their_wrapping(reply):
    assert parse_supporter(reply, EXTES) == "You did well."


@pytest.mark.parametrize("words", ["(sighs) You did well.", "(Question) You did well.", "You did (Affirmation) well."])
def test_other_brackets_belong_to_the_words(words):
    assert parse_supporter(words, EXTES) == words


@pytest.mark.parametrize("reply", ["", "  \n", '""', "Seeker:", "``````"])
def test_an_empty_reply_is_a_parse_error(reply):
    with pytest.raises(ParseError):
        parse_supporter(reply, EXTES)


def test_a_label_alone_is_a_parse_error():
    with pytest.raises(ParseError):
        parse_supporter("(Affirmation)", EXTES)


@given(ANY_TEXT)
def test_any_text_is_a_valid_value_or_a_parse_error(text):
    try:
        words = parse_supporter(text, EXTES)
    except ParseError:
        return
    assert words and words == " ".join(words.split())
