"""Where the sentences of a text end, in scripts with and without spaces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cso_lab.core.sentences import whole_sentences


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("I hear you. That is", "I hear you."),
        ("I hear you. That is hard!", "I hear you. That is hard!"),
        ("Really?! I am", "Really?!"),
        ('He said "no." And then', 'He said "no."'),
        ("I am… not sure", "I am…"),
        ("It took me 3.5 hours and", ""),
        ("You could ask Dr. Weber, e.g. on", ""),
        ("1. Breathe\n2. Walk", ""),
        ("No end here", ""),
        ("", ""),
        ("你辛苦了。我觉得你", "你辛苦了。"),
        ("真的吗？！我", "真的吗？！"),
        ("「大変でしたね。」と言って", "「大変でしたね。」"),
        ("我不知道……也许", "我不知道……"),
        ("मैं समझता हूँ। आप", "मैं समझता हूँ।"),
        ("أفهمك. هل أنت بخير؟ أنا", "أفهمك. هل أنت بخير؟"),
    ],
)
def test_a_text_is_cut_back_to_its_last_whole_sentence(text, whole):
    assert whole_sentences(text) == whole


@given(st.text(alphabet="ab .!?…。？」\"'\n3"))
def test_whole_sentences_are_a_part_of_the_text_and_whole(text):
    whole = whole_sentences(text)
    assert text.startswith(whole) and whole_sentences(whole) == whole
