"""Every form in which a seeker may reply: the end token in any spelling, and words with what models put around them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roles.reply_examples import ANY_TEXT

from cso_lab.core.records import SeekerReply
from cso_lab.llm.errors import ParseError
from cso_lab.roles.parsing import parse_seeker


@pytest.mark.parametrize(
    "token",
    [
        "</end/>",
        "</end>",
        "<end/>",
        "<end>",
        "</END/>",
        "< /end/ >",
        "</ end />",
        "<\\end\\>",
        "[end]",
        "[/END]",
        "(end)",
        "{end}",
        "/end/",
        "</end/",
        "<|end|>",
        "&lt;/end/&gt;",
        "`</end/>`",
        '"</end/>"',
        "**</end/>**",
        "\\</end/\\>",
        "[End of conversation]",
        "<end_of_dialogue>",
        "[END OF THE CHAT]",
        "[end conversation]",
    ],
)
def test_any_reasonable_spelling_of_the_end_token(token):
    assert parse_seeker(token) == SeekerReply(None, True)
    assert parse_seeker(f"Seeker: {token}") == SeekerReply(None, True)
    assert parse_seeker(f"Thanks, bye. {token}") == SeekerReply("Thanks, bye.", True)
    assert parse_seeker(f'"Thanks, bye."\n{token}\n') == SeekerReply("Thanks, bye.", True)
    assert parse_seeker(f"Thanks, bye. {token} (leaves)") == SeekerReply("Thanks, bye.", True)


@pytest.mark.parametrize("reply", ["end", "END.", "**END**", "End of conversation", "--- end of the dialogue ---"])
def test_the_bare_word_as_the_whole_reply(reply):
    assert parse_seeker(reply) == SeekerReply(None, True)


def test_token_within_the_quotes():
    assert parse_seeker('"Okay, bye. </end/>"') == SeekerReply("Okay, bye.", True)


@pytest.mark.parametrize(
    "words",
    [
        "in the end",
        "In the end, nothing helped.",
        "the weekend/ was long",
        "every weekend/evening",
        "the end (of it)",
        "the (end of it) all",
        "I want it to end.",
        "The end",
        "friend/",
        "and/or end/start",
        "<3 end",
        "(endless)",
        "[ending] soon",
        "a dead end",
        "week/end/holiday",
        "no end in sight >",
    ],
)
def test_words_that_merely_contain_end(words):
    assert parse_seeker(words) == SeekerReply(words, False)


@pytest.mark.parametrize(
    "reply",
    [
        "I don't know.",
        " I don't\n know. ",
        '"I don\'t know."',
        "'I don't know.'",
        "“I don't know.”",
        "`I don't know.`",
        "```\nI don't know.\n```",
        "Seeker: I don't know.",
        'seeker: "I don\'t know."',
        '"Seeker: I don\'t know."',
        "**Seeker:** I don't know.",
        "User : I don't know.",
    ],
)
def test_words_without_their_wrapping(reply):
    assert parse_seeker(reply) == SeekerReply("I don't know.", False)


@pytest.mark.parametrize(
    "words",
    ['"No" and then "yes"', "“No” and then “yes”", 'She said "no"', "'No' or 'yes'", "Assistant manager", "it's 5: 30", '"'],
)
def test_quotes_and_names_that_belong_to_the_words_stay(words):
    assert parse_seeker(words) == SeekerReply(words, False)


@pytest.mark.parametrize("reply", ["", "  \n", '""', "Seeker:", "``````"])
def test_an_empty_reply_is_a_parse_error(reply):
    with pytest.raises(ParseError):
        parse_seeker(reply)


@given(ANY_TEXT)
def test_any_text_is_a_valid_value_or_a_parse_error(text):
    try:
        reply = parse_seeker(text)
    except ParseError:
        return
    assert reply.end or reply.text
    assert reply.text is None or (reply.text and "\n" not in reply.text and reply.text == reply.text.strip())


@given(
    st.from_regex(r"\A[A-Za-z][a-z]{2,8}( [a-z]{2,8}){0,6}[.?!]\Z"), st.sampled_from(["{}", '"{}"', "Seeker: {}", "{} </end/>"])
)
def test_plain_words_are_not_changed(words, form):
    assert parse_seeker(form.format(words)).text in ((words,) if words.lower().rstrip(".?!") != "end" else (words, None))
