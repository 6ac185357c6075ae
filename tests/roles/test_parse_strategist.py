"""Every form in which a strategist may reply, and the replies that must be rejected."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roles.reply_examples import (
    ANY_JSON,
    ANY_TEXT,
    JSON_WRAPPINGS,
    NUMBERED_FORMS,
    PROSE_WITHOUT_BRACKETS,
    RATED,
    RATED_JSON,
    SEPARATORS,
    TEXT_WITHOUT_DIGITS,
)

from cso_lab.core.strategies import ESCONV, EXTES
from cso_lab.llm.errors import ParseError
from cso_lab.roles.parsing import parse_strategist


@pytest.mark.parametrize("wrapping", JSON_WRAPPINGS)
def test_json_in_every_wrapping(wrapping):
    assert parse_strategist(wrapping.format(RATED_JSON), EXTES) == RATED


def test_keys_in_any_case_and_values_as_strings_or_whole_floats():
    assert parse_strategist('{"AFFIRMATION": "7", "share  information": 0.0}', EXTES) == RATED


def test_a_raw_label_counts_for_its_strategy():
    assert parse_strategist('{"Offer Hope": 7}', EXTES) == {"Affirmation": 7}
    assert parse_strategist('{"Question": 7, "Others": 1}', ESCONV) == {"Question": 7, "Others": 1}


def test_a_list_of_one_object_a_strategy_is_one_answer():
    assert parse_strategist('[{"Affirmation": 7},\n {"Share Information": 0}]', EXTES) == RATED


RATED_IN_MANY_FORMS = [
    '{"scores": {"Affirmation": 7, "Share Information": 0}}',
    '{"result": {"ratings": [{"Affirmation": 7}, {"Share Information": 0}]}}',
    '{"reasoning": "They are 2 weeks in.", "Affirmation": 7, "Share Information": 0}',
    '{"reasoning": {"Affirmation": "3 signs of it", "Share Information": "1"}, "scores": {"Affirmation": 7, "Share Information": 0}}',
    '{"Affirmation": 7, "Share Information": 0, "best_strategy": "Affirmation", "confidence": 9}',
    '[{"strategy": "Affirmation", "score": 7}, {"strategy": "Share Information", "score": 0, "reason": "too early"}]',
    '{"strategies": [{"name": "Affirmation", "rating": "7/10"}, {"name": "Share Information", "rating": "0/10"}]}',
    '{"strategy": "Affirmation", "score": 7}\n{"strategy": "Share Information", "score": 0}',
    '[["Affirmation", 7], ["Share Information", 0]]',
    '{"Affirmation": {"score": 7, "reason": "needed"}, "Share Information": {"reason": "too early", "score": 0}}',
    '{"Affirmation": "7/10", "Share Information": "0 / 10"}',
    '{"Affirmation": 7.0, "Share Information": "0.0"}',
    '{"Affirmation": "7 (needed now)", "Share Information": "0 - too early"}',
    '{"Affirmation": "7 out of 10", "Share Information": "0 points"}',
    '{"2. Affirmation": 7, "8. Share Information": 0}',
    '{"Affirmation score": 7, "Share Information (0-10)": 0}',
    '{"2": 7, "8": 0}',
    '{"Affirmation": 7, "Share Information": 0,}',
    "{'Affirmation': 7, 'Share Information': 0}",
    "Affirmation: 7\nShare Information: 0",
    "- **Affirmation**: 7/10 (needed now)\n- **Share Information**: 0/10 (too early)",
    "| Strategy | Score |\n|---|---|\n| Affirmation | 7 |\n| Share Information | 0 |",
    "Affirmation - 7\nShare Information - 0",
    "1. Affirmation: 7\n2. Share Information: 0",  # the best first, which is not the strategies' own order
    "(2): 7/10\n(8): 0/10",
]


@pytest.mark.parametrize("reply", RATED_IN_MANY_FORMS)
def test_scores_in_every_reasonable_form(reply):
    assert parse_strategist(reply, EXTES) == RATED


def test_numbers_count_the_strategies_in_their_order():
    assert parse_strategist("1: 10\n8: 0", EXTES) == {EXTES.names[0]: 10, EXTES.names[7]: 0}


@pytest.mark.parametrize(
    "reply",
    [
        '{"Hypnosis": 7}',
        '{"Others": 7}',
        '{"Affirmation": 11}',
        '{"Affirmation": 7, "Hypnosis": 3}',
        '{"Affirmation": 7, "Hypnosis": "3/10"}',
        '{"scores": {"Affirmation": 7, "Hypnosis": 3}}',
        '[{"strategy": "Affirmation", "score": 7}, {"strategy": "Hypnosis", "score": 3}]',
        '[{"strategy": "Affirmation", "score": 7}, {"strategy": "Affirmation", "score": 3}]',
        '[{"strategy": "Affirmation", "score": 11}]',
        '[{"strategy": "Affirmation", "score": 7, "rating": 3}]',
        '{"Affirmation": 7, "affirmation": 3}',
        '{"Affirmation": "7/5"}',
        '{"Affirmation": "70%"}',
        '{"Affirmation": "seven"}',
        '{"score": 7}',
        '{"7": "Affirmation"}',
        '{"strategies": ["Affirmation", "Share Information"], "best": "Affirmation"}',
        '{"Affirmation": 7, "Share Information": 0, "Emo',
        "Affirmation: 7\nHypnosis: 3",
        "Affirmation: 7\nAffirmation: 3",
        "1. Affirmation: 7\n2. Hypnosis: 3",
        "I would choose Affirmation, since 3 things speak for it.",
        "9: 4",
        "1: 11",
        "none",
    ],
)
def test_invalid_replies(reply):
    with pytest.raises(ParseError):
        parse_strategist(reply, EXTES)


@given(ANY_TEXT)
def test_any_text_is_a_valid_value_or_a_parse_error(text):
    check_scores(text)


@given(ANY_JSON)
def test_any_json_is_a_valid_value_or_a_parse_error(value):
    check_scores(json.dumps(value))


def check_scores(reply: str) -> None:
    """Checks that a reply is a ParseError or gives known strategies and integers on the scale."""
    try:
        scores = parse_strategist(reply, EXTES)
    except ParseError:
        return
    assert scores and set(scores) <= set(EXTES.names)
    assert all(type(score) is int and 0 <= score <= 10 for score in scores.values())


SCORES = st.dictionaries(st.sampled_from(EXTES.names), st.integers(0, 10), min_size=1)


@given(
    SCORES,
    PROSE_WITHOUT_BRACKETS,
    PROSE_WITHOUT_BRACKETS,
    st.sampled_from(["{}", "```json\n{}\n```", "`{}`"]),
    st.sampled_from([None, 1]),
)
def test_json_scores_survive_their_wrapping(scores, before, after, wrapping, indent):
    assert parse_strategist(before + wrapping.format(json.dumps(scores, indent=indent)) + after, EXTES) == scores


@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=4),
    st.sampled_from(NUMBERED_FORMS),
    st.sampled_from(SEPARATORS),
    st.randoms(use_true_random=False),
)
def test_numbered_scores_survive_their_form(scores, form, separator, rng: random.Random):
    rows = [form.format(number, score) for number, score in enumerate(scores, start=1)]
    rng.shuffle(rows)
    assert parse_strategist(separator.join(rows), EXTES) == dict(zip(EXTES.names, scores, strict=False))


# In whatever form a model gives scores, they are read as they are or rejected, and never changed.


def in_some_form(rows: dict[str, object], rng: random.Random) -> str:
    """Returns a reply with `rows` in one of the forms that models use."""
    records = [{"strategy": name, "score": value} for name, value in rows.items()]
    lines = [f"{name}: {value}" for name, value in rows.items()]
    structure = rng.choice(
        [
            rows,
            {"scores": rows},
            {"reasoning": "as 1, 2, 3 show", "scores": rows},
            {**rows, "comment": "7 of 9"},
            records,
            {"ratings": records},
            [{name: value} for name, value in rows.items()],
            [[name, value] for name, value in rows.items()],
            {name: {"score": value, "reason": "it fits"} for name, value in rows.items()},
        ]
    )
    as_json = json.dumps(structure, indent=rng.choice([None, 2]))
    table = "| Strategy | Score |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return rng.choice([as_json, f"```json\n{as_json}\n```", f"Here you are.\n{as_json}", "\n".join(lines), table])


def in_some_notation(rng: random.Random, value: int) -> object:
    """Returns a score in one of the notations that models use."""
    return rng.choice([value, float(value), str(value), f"{value}.0", f"{value}/10", f"{value} out of 10"])


@given(SCORES, st.randoms(use_true_random=False))
def test_scores_in_any_form_are_read(scores, rng):
    rows = {name: in_some_notation(rng, value) for name, value in scores.items()}
    assert parse_strategist(in_some_form(rows, rng), EXTES) == scores


@given(
    SCORES,
    st.sampled_from([11, -1, 99, 3.5, "11", "-1", "3.5", "3-5", "3/5", "12/10", True, None, "high", "", [], [3], {}]),
    st.randoms(use_true_random=False),
)
def test_one_invalid_score_rejects_the_reply(scores, invalid, rng):
    name = rng.choice(list(scores))
    rows = {name: in_some_notation(rng, value) for name, value in scores.items()} | {name: invalid}
    reply = json.dumps(rng.choice([rows, {"scores": rows}, [{"strategy": n, "score": v} for n, v in rows.items()]]))
    with pytest.raises(ParseError):
        parse_strategist(reply, EXTES)


@given(SCORES, st.integers(1, 10), st.randoms(use_true_random=False))
def test_contradictory_scores_are_rejected(scores, difference, rng):
    name = rng.choice(list(scores))
    rows = [*scores.items(), (name, (scores[name] + difference) % 11)]
    rng.shuffle(rows)
    forms = [
        json.dumps([{"strategy": label, "score": value} for label, value in rows]),
        "{" + ", ".join(f'"{label}": {value}' for label, value in rows) + "}",
        "\n".join(f"{label}: {value}" for label, value in rows),
    ]
    with pytest.raises(ParseError):
        parse_strategist(rng.choice(forms), EXTES)


@given(TEXT_WITHOUT_DIGITS)
def test_words_without_a_digit_are_no_score(text):
    with pytest.raises(ParseError):
        parse_strategist(text, EXTES)
