"""Every form in which a role player may reply, and the replies that must be rejected."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cso_lab.core.records import SeekerReply
from cso_lab.core.strategies import ESCONV, EXTES
from cso_lab.llm.errors import ParseError
from cso_lab.roles.parsing import parse_judge, parse_ratings, parse_seeker, parse_strategist, parse_supporter

JUDGED = {"E": 3, "I": 2, "H": 4, "S": 1}
JUDGE_JSON = '{"empathy": 3, "information": 2, "humanoid": 4, "strategy": 1}'
RATED = {"Affirmation": 7, "Share Information": 0}
RATED_JSON = '{"Affirmation": 7, "Share Information": 0}'
WRAPPINGS = [
    "{}",
    "```json\n{}\n```",
    "```\n{}\n```",
    "`{}`",
    "I think the seeker is tired {{very}}.\n\n{}",
    "Result: {} Done.",
    "[{}]",
]

# judge and strategist: JSON


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_json_in_every_wrapping(wrapping):
    assert parse_judge(wrapping.format(JUDGE_JSON)) == JUDGED
    assert parse_strategist(wrapping.format(RATED_JSON), EXTES) == RATED


def test_keys_in_any_case_and_values_as_strings_or_whole_floats():
    assert parse_judge('{"Empathy": "3", " INFORMATION": 2.0, "Humanoid": 4, "Strategies": " 1 "}') == JUDGED
    assert parse_strategist('{"AFFIRMATION": "7", "share  information": 0.0}', EXTES) == RATED


def test_a_raw_label_counts_for_its_strategy():
    assert parse_strategist('{"Offer Hope": 7}', EXTES) == {"Affirmation": 7}
    assert parse_strategist('{"Question": 7, "Others": 1}', ESCONV) == {"Question": 7, "Others": 1}


def test_the_last_object_counts_since_models_think_first():
    draft = '{"empathy": 0, "information": 0, "humanoid": 0, "strategy": 0}'
    assert parse_judge(f"At first sight {draft}, but on reflection {JUDGE_JSON} {{}}") == JUDGED


def test_a_list_of_one_object_a_strategy_is_one_answer():
    assert parse_strategist('[{"Affirmation": 7},\n {"Share Information": 0}]', EXTES) == RATED


def test_judge_may_say_more_than_the_four_scores():
    assert parse_judge(JUDGE_JSON[:-1] + ', "reason": "warm"}') == JUDGED


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
def test_the_strategists_scores_in_every_reasonable_form(reply):
    assert parse_strategist(reply, EXTES) == RATED


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
def test_the_judges_scores_in_every_reasonable_form(reply):
    assert parse_judge(reply) == JUDGED


@pytest.mark.parametrize("share", ["60", '"60%"', '"60/100"', "60.0", '{"value": 60}'])
def test_ratings_up_to_a_hundred(share):
    ratings = parse_ratings(f'{{"scores": {{"Severe toxicity": {share}, "INSULT": 0}}}}', ("SEVERE_TOXICITY", "INSULT"), 100)
    assert ratings == {"SEVERE_TOXICITY": 60, "INSULT": 0}


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
def test_invalid_judgements(reply):
    with pytest.raises(ParseError):
        parse_judge(reply)


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
def test_invalid_ratings(reply):
    with pytest.raises(ParseError):
        parse_strategist(reply, EXTES)


# numbered lines


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


def test_numbers_count_the_strategies_in_their_order():
    assert parse_strategist("1: 10\n8: 0", EXTES) == {EXTES.names[0]: 10, EXTES.names[7]: 0}


# the seeker's end token


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


# words without what a model puts around them


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
def test_seekers_words(reply):
    assert parse_seeker(reply) == SeekerReply("I don't know.", False)


@pytest.mark.parametrize(
    "words",
    ['"No" and then "yes"', "“No” and then “yes”", 'She said "no"', "'No' or 'yes'", "Assistant manager", "it's 5: 30", '"'],
)
def test_quotes_and_names_that_belong_to_the_words_stay(words):
    assert parse_seeker(words) == SeekerReply(words, False)


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
def test_supporters_words(reply):
    assert parse_supporter(reply, EXTES) == "You did well."


@pytest.mark.parametrize("words", ["(sighs) You did well.", "(Question) You did well.", "You did (Affirmation) well."])
def test_other_brackets_belong_to_the_supporters_words(words):
    assert parse_supporter(words, EXTES) == words


@pytest.mark.parametrize("reply", ["", "  \n", '""', "Seeker:", "``````"])
def test_an_empty_reply_is_a_parse_error(reply):
    with pytest.raises(ParseError):
        parse_seeker(reply)
    with pytest.raises(ParseError):
        parse_supporter(reply, EXTES)


def test_a_label_alone_is_a_parse_error():
    with pytest.raises(ParseError):
        parse_supporter("(Affirmation)", EXTES)


# properties

ANY = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="{}[]()<>/\\\"'`:=-.,*end 0123456789", max_size=60),
    st.lists(
        st.sampled_from(
            ["{", "}", '"', "Affirmation", "empathy", "(1)", ":", " 3", ",", "</end/>", "Seeker:", "\n", "```", "NaN", "1"]
        ),
        max_size=14,
    ).map("".join),
)


@given(ANY)
def test_any_text_is_a_valid_value_or_a_parse_error(text):
    try:
        reply = parse_seeker(text)
        assert reply.end or reply.text
        assert reply.text is None or (reply.text and "\n" not in reply.text and reply.text == reply.text.strip())
    except ParseError:
        pass
    try:
        words = parse_supporter(text, EXTES)
        assert words and words == " ".join(words.split())
    except ParseError:
        pass
    try:
        scores = parse_strategist(text, EXTES)
        assert scores and set(scores) <= set(EXTES.names)
        assert all(type(score) is int and 0 <= score <= 10 for score in scores.values())
    except ParseError:
        pass
    try:
        scores = parse_judge(text)
        assert list(scores) == ["E", "I", "H", "S"] and all(type(score) is int and 0 <= score <= 4 for score in scores.values())
    except ParseError:
        pass


PROSE = st.text(alphabet=st.characters(blacklist_characters="{}[],", blacklist_categories=["Cs"]), max_size=40)


@given(
    st.fixed_dictionaries({name: st.integers(0, 4) for name in ("empathy", "information", "humanoid", "strategy")}),
    st.dictionaries(st.sampled_from(EXTES.names), st.integers(0, 10), min_size=1),
    PROSE,
    PROSE,
    st.sampled_from(["{}", "```json\n{}\n```", "`{}`"]),
    st.sampled_from([None, 1]),
)
def test_json_scores_survive_their_wrapping(judged, rated, before, after, wrapping, indent):
    expected = {"E": judged["empathy"], "I": judged["information"], "H": judged["humanoid"], "S": judged["strategy"]}
    assert parse_judge(before + wrapping.format(json.dumps(judged, indent=indent)) + after) == expected
    assert parse_strategist(before + wrapping.format(json.dumps(rated, indent=indent)) + after, EXTES) == rated


@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=4),
    st.sampled_from(["({}): {}", "{}: {}", "{}. {}", "{}) {}", "{}={}", "({}):{}", "{}. Name: {}"]),
    st.sampled_from(["\n", ", ", "\r\n", "; ", "\n\n"]),
    st.randoms(use_true_random=False),
)
def test_numbered_scores_survive_their_form(scores, form, between, rng: random.Random):
    rows = [form.format(number, score) for number, score in enumerate(scores, start=1)]
    rng.shuffle(rows)
    assert parse_judge(between.join(rows)) == dict(zip("EIHS", scores, strict=True))
    assert parse_strategist(between.join(rows), EXTES) == dict(zip(EXTES.names, scores, strict=False))


@given(
    st.from_regex(r"\A[A-Za-z][a-z]{2,8}( [a-z]{2,8}){0,6}[.?!]\Z"), st.sampled_from(["{}", '"{}"', "Seeker: {}", "{} </end/>"])
)
def test_plain_words_come_through(words, form):
    assert parse_seeker(form.format(words)).text in ((words,) if words.lower().rstrip(".?!") != "end" else (words, None))


# properties of forms: whatever form scores have, they are read or refused, and never changed


def _forms(rows: dict[str, object], rng: random.Random) -> str:
    """`rows` in one of the forms models use."""
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


def _number(rng: random.Random, value: int) -> object:
    return rng.choice([value, float(value), str(value), f"{value}.0", f"{value}/10", f"{value} out of 10"])


SCORES = st.dictionaries(st.sampled_from(EXTES.names), st.integers(0, 10), min_size=1)


@given(SCORES, st.randoms(use_true_random=False))
def test_scores_in_any_form_are_read(scores, rng):
    rows = {name: _number(rng, value) for name, value in scores.items()}
    assert parse_strategist(_forms(rows, rng), EXTES) == scores


@given(
    SCORES,
    st.sampled_from([11, -1, 99, 3.5, "11", "-1", "3.5", "3-5", "3/5", "12/10", True, None, "high", "", [], [3], {}]),
    st.randoms(use_true_random=False),
)
def test_one_score_that_is_none_spoils_them_all(scores, nonsense, rng):
    name = rng.choice(list(scores))
    rows = {name: _number(rng, value) for name, value in scores.items()} | {name: nonsense}
    reply = json.dumps(rng.choice([rows, {"scores": rows}, [{"strategy": n, "score": v} for n, v in rows.items()]]))
    with pytest.raises(ParseError):
        parse_strategist(reply, EXTES)


@given(SCORES, st.integers(1, 10), st.randoms(use_true_random=False))
def test_scores_that_contradict_one_another_are_refused(scores, by, rng):
    name = rng.choice(list(scores))
    rows = [*scores.items(), (name, (scores[name] + by) % 11)]
    rng.shuffle(rows)
    forms = [
        json.dumps([{"strategy": label, "score": value} for label, value in rows]),
        "{" + ", ".join(f'"{label}": {value}' for label, value in rows) + "}",
        "\n".join(f"{label}: {value}" for label, value in rows),
    ]
    with pytest.raises(ParseError):
        parse_strategist(rng.choice(forms), EXTES)


@given(st.text(alphabet=st.characters(blacklist_categories=["Nd", "No", "Nl", "Cs"]), max_size=120))
def test_words_without_a_digit_are_no_score(text):
    for parse in (lambda reply: parse_strategist(reply, EXTES), parse_judge):
        with pytest.raises(ParseError):
            parse(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=9),
        lambda c: st.lists(c) | st.dictionaries(st.sampled_from(["scores", "x", "strategy", "score", "", *EXTES.names[:3]]), c),
        max_leaves=9,
    )
)
def test_any_json_is_a_valid_value_or_a_parse_error(value):
    try:
        scores = parse_strategist(json.dumps(value), EXTES)
        assert scores and all(type(score) is int and 0 <= score <= 10 for score in scores.values())
    except ParseError:
        pass
