"""What is the answer in a reply of a reasoning model, whichever marks it writes around its reasoning."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cso_lab.llm.reasoning import ReplyText, strip_reasoning

BLOCKS = (
    ("<think>", "</think>"),
    ("<THINK>", "</THINK>"),
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("◁think▷", "◁/think▷"),
)
HARMONY = ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant", "<|channel|>final<|message|>", "<|return|>")
MARKS = [mark for pair in BLOCKS for mark in pair] + list(HARMONY)
WORDS = st.text(alphabet="ab (){}\":,\n你。'</>|[]é🙂")
PIECES = st.lists(st.one_of(WORDS, st.sampled_from(MARKS)), max_size=8).map("".join)


@given(st.sampled_from(BLOCKS), WORDS, WORDS)
def test_what_follows_a_block_is_the_answer(block, thought, answer):
    opening, closing = block
    expected = answer.strip()
    assert strip_reasoning(f"{opening}{thought}{closing}\n\n{answer}") == expected
    assert strip_reasoning(f"{thought}{closing}{answer}") == expected  # the template opened the block in the prompt
    assert (
        strip_reasoning(f"{opening}{thought}{closing}{answer}{opening}{thought}") == expected
    )  # cut while it thought once more


@given(st.sampled_from(BLOCKS), WORDS)
def test_a_block_that_is_never_closed_leaves_no_answer(block, thought):
    assert strip_reasoning(f"{block[0]}{thought}") == ""


@given(WORDS, WORDS)
def test_of_channels_the_final_one_is_the_answer(thought, answer):
    analysis = f"<|channel|>analysis<|message|>{thought}"
    final = f"<|start|>assistant<|channel|>final<|message|>{answer}"
    assert (
        strip_reasoning(f"{analysis}<|end|>{final}<|return|>") == strip_reasoning(f"{analysis}<|end|>{final}") == answer.strip()
    )
    assert strip_reasoning(f"<|start|>assistant{analysis}") == strip_reasoning(f"{analysis}<|end|><|start|>assistant") == ""


@given(WORDS)
def test_a_reply_without_marks_stays_as_it_is(text):
    assert strip_reasoning(text) == text


@given(PIECES)
@example("<thi<think>a</think>nk>b</think>c")
@example("<|channel|>analysis<|message|>a<|channel|>final<|message|><think>b</think>c<|end|>d")
def test_no_mark_is_left_and_nothing_is_stripped_twice(text):
    answer = strip_reasoning(text)
    assert not [opening for pair in BLOCKS for opening in pair if opening.strip() in answer] and "<|channel|>" not in answer
    assert strip_reasoning(answer) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<think>a <think> in it</think>b", "b"),
        ("Hello<think>a</think> you", "Hello you"),
        ('<think>a</think>{"Affirmation": 3}', '{"Affirmation": 3}'),
        ("analysisWe should comfort.assistantfinalThat is hard.", "That is hard."),  # the server has removed the marks
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "b"),
        ("Thank you. </end/>", "Thank you. </end/>"),
        ("I think, [sighs] <3", "I think, [sighs] <3"),
    ],
)
def test_replies_as_models_write_them(reply, answer):
    text = ReplyText(reply, cut=True)
    assert (text, text.raw, text.cut) == (answer, reply, True)
