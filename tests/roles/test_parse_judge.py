"""Every form in which a judge may reply, and the replies that must be rejected."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roles.reply_examples import (
    ANY_TEXT,
    JSON_WRAPPINGS,
    JUDGE_JSON,
    JUDGED,
    NUMBERED_FORMS,
    PROSE_WITHOUT_BRACKETS,
    SEPARATORS,
    TEXT_WITHOUT_DIGITS,
)

from cso_lab.llm.errors import ParseError
from cso_lab.roles.parsing import parse_judge


@pytest.mark.parametrize("wrapping", JSON_WRAPPINGS)
def test_json_in_every_wrapping(wrapping):
    assert parse_judge(wrapping.format(JUDGE_JSON)) == JUDGED


def test_keys_in_any_case_and_values_as_strings_or_whole_floats():
    assert parse_judge('{"Empathy": "3", " INFORMATION": 2.0, "Humanoid": 4, "Strategies": " 1 "}') == JUDGED


def test_the_last_object_counts_since_models_think_first():
    draft = '{"empathy": 0, "information": 0, "humanoid": 0, "strategy": 0}'
    assert parse_judge(f"At first sight {draft}, but on reflection {JUDGE_JSON} {{}}") == JUDGED


def test_further_keys_beside_the_four_scores():
    assert parse_judge(JUDGE_JSON[:-1] + ', "reason": "warm"}') == JUDGED


@pytest.mark.parametrize(
    "reply",
    [
        '{"scores": ' + JUDGE_JSON + "}",
        '{"reasoning": "It took 3 lines.", "total": 10, ' + JUDGE_JSON[1:],
        JUDGE_JSON.replace("1", '{"score": 1, "reason": "clumsy"}'),
        '[{"criterion": "empathy", "score": 3}, {"criterion": "information", "score": 2},'
        ' {"criterion": "humanoid", "score": 4}, {"criterion": "strategy", "score": 1}]',
        '{"empathy": "3/4", "information": "2/4", "humanoid": "4/4", "strategy": "1/4"}',
        '{"empathy": 3.0, "information": 2.0, "humanoid": 4.0, "strategy": 1.0}',
        '{"1": 3, "2": 2, "3": 4, "4": 1}',
        '{"empathy": 3}\n{"information": 2}\n{"humanoid": 4}\n{"strategy": 1}',
        '{"empathy": 3, "information": 2, "humanoid": 4, "strategy": 1,} // strict',
        "Empathy: 3\nInformation: 2\nHumanoid: 4\nStrategy: 1",
        "Strategy: the reply affirms.\n\nEmpathy: 3/4; Information: 2/4; Humanoid: 4/4; Strategy: 1/4",
        "(1): 3/4\n(2): 2/4\n(3): 4/4\n(4): 1/4",
        "1. Strategy: 1\n2. Empathy: 3\n3. Information: 2\n4. Humanoid: 4",
    ],
)
def test_scores_in_every_reasonable_form(reply):
    assert parse_judge(reply) == JUDGED


@pytest.mark.parametrize(
    "reply",
    [
        "(1): 3\n(2): 2\n(3): 4\n(4): 1",
        "1: 3\n2: 2\n3: 4\n4: 1",
        "1. 3\n2. 2\n3. 4\n4. 1",
        "1) 3\n2) 2\n3) 4\n4) 1",
        "1: 3, 2: 2, 3: 4, 4: 1.",
        "1=3;2=2;3=4;4=1",
        "(1):3(2):2(3):4(4):1",
        "1 - 3\n2 - 2\n3 - 4\n4 - 1",
        "1. Empathy: 3\n2. Information: 2\n3. Humanoid: 4\n4. Strategy: 1",
        "(1) **Empathy**: 3\n(2) **Information**: 2\n(3) **Humanoid**: 4\n(4) **Strategy**: 1",
        "On the scale of 0-4 (0 being 1.5 times worse) my scores are:\n(1): 3\n(2): 2\n(3): 4\n(4): 1\nAll within 1-4.",
    ],
)
def test_numbered_scores(reply):
    assert parse_judge(reply) == JUDGED


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "   ",
        "I cannot rate this.",
        "{}",
        "[]",
        "null",
        '{"empathy": 3, "information": 2, "humanoid": 4}',
        JUDGE_JSON.replace("1", "5"),
        JUDGE_JSON.replace("1", "-1"),
        JUDGE_JSON.replace("1", "1.5"),
        JUDGE_JSON.replace("1", "true"),
        JUDGE_JSON.replace("1", "null"),
        JUDGE_JSON.replace("1", "NaN"),
        JUDGE_JSON.replace("1", "Infinity"),
        JUDGE_JSON.replace("1", "1e999"),
        JUDGE_JSON.replace("1", "[1]"),
        JUDGE_JSON.replace("1", '{"score": 1, "rating": 2}'),
        JUDGE_JSON.replace("1", '{"reason": "warm"}'),
        JUDGE_JSON.replace("1", '"3/10"'),
        JUDGE_JSON.replace("1", '"5/4"'),
        JUDGE_JSON.replace("1", '"1-2"'),
        JUDGE_JSON.replace("1", '"1 or 2"'),
        JUDGE_JSON.replace("1", '"1.5/4"'),
        JUDGE_JSON[:-1] + ', "empathy": 0}',
        JUDGE_JSON[:-1] + ', "scores": {"empathy": 0}}',
        '{"draft": {"empathy": 0}, "scores": ' + JUDGE_JSON + "}",
        "[3, 2, 4, 1]",
        '["empathy", "information", "humanoid", "strategy"]',
        '{"1": 3, "2": 2, "3": 4, "5": 1}',
        JUDGE_JSON[:-6],
        "Empathy: 3\nInformation: 2\nHumanoid: 4",
        "Empathy: 3\nInformation: 2\nHumanoid: 4\nStrategy: well chosen",
        "Empathy: 3\nInformation: 2\nHumanoid: 4\nStrategy: 5",
        "Empathy: 3\nInformation: 2\nHumanoid: 4\nStrategy: 1\nEmpathy: 2",
        "Empathy: 3/10\nInformation: 2/10\nHumanoid: 4/10\nStrategy: 1/10",
        "(1): 3/10\n(2): 2/10\n(3): 4/10\n(4): 1/10",
        "(1): 3\n(2): 2\n(3): 4\n(4): 1\n(1): 2",
        "1. Strategy: 1\n2. Empathy: 3\n3. Kindness: 2\n4. Humanoid: 4",
        JUDGE_JSON.replace("1", '"high"'),
        JUDGE_JSON.replace("1", "9" * 5000),
        JUDGE_JSON.replace("1", '"²"'),
        "1: 3, 2: 2, 3: 4",
        "1: 3, 2: 2, 3: 4, 4: 5",
        "1: 3, 2: 2, 3: 4, 4: 1.5",
        "1: 3, 2: 2, 3: 4, 5: 1",
        "1: 3, 2: 2, 3: 4, 4: " + "9" * 5000,
        "9" * 5000 + ": 1",
        '{"a":' * 2000,
    ],
)
def test_invalid_replies(reply):
    with pytest.raises(ParseError):
        parse_judge(reply)


@given(ANY_TEXT)
def test_any_text_is_a_valid_value_or_a_parse_error(text):
    try:
        scores = parse_judge(text)
    except ParseError:
        return
    assert list(scores) == ["E", "I", "H", "S"] and all(type(score) is int and 0 <= score <= 4 for score in scores.values())


@given(
    st.fixed_dictionaries({name: st.integers(0, 4) for name in ("empathy", "information", "humanoid", "strategy")}),
    PROSE_WITHOUT_BRACKETS,
    PROSE_WITHOUT_BRACKETS,
    st.sampled_from(["{}", "```json\n{}\n```", "`{}`"]),
    st.sampled_from([None, 1]),
)
def test_json_scores_survive_their_wrapping(scores, before, after, wrapping, indent):
    expected = {"E": scores["empathy"], "I": scores["information"], "H": scores["humanoid"], "S": scores["strategy"]}
    assert parse_judge(before + wrapping.format(json.dumps(scores, indent=indent)) + after) == expected


@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=4),
    st.sampled_from(NUMBERED_FORMS),
    st.sampled_from(SEPARATORS),
    st.randoms(use_true_random=False),
)
def test_numbered_scores_survive_their_form(scores, form, separator, rng: random.Random):
    rows = [form.format(number, score) for number, score in enumerate(scores, start=1)]
    rng.shuffle(rows)
    assert parse_judge(separator.join(rows)) == dict(zip("EIHS", scores, strict=True))


@given(TEXT_WITHOUT_DIGITS)
def test_words_without_a_digit_are_no_score(text):
    with pytest.raises(ParseError):
        parse_judge(text)
