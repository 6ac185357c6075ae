import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import EXTES
from cso_lab.corpora import Reason
from cso_lab.corpora.extes import read_extes


def user(words):
    return {"User": words}


def ai(words, strategy="Affirmation", key="AI Strategy"):
    return {"AI": words, key: strategy}


def record(*turns, scene="work", description="a hard week"):
    return {"scene": scene, "description": description, "content": list(turns)}


# A clean second exchange, so that a record's fate hangs on what a test puts before it.
REST = (user("I will try."), ai("Good luck.", "Offer Hope"))
REST_READ = (Turn(SEEKER, "I will try."), Turn(SUPPORTER, "Good luck.", "Affirmation"))


@pytest.fixture
def read(raw_file):
    return lambda *records: read_extes(raw_file(records), EXTES)


def read_turns(read, *turns):
    corpus = read(record(*turns))
    assert not corpus.rejected
    return corpus.dialogues[0].turns


def only_reason(corpus):
    assert corpus.dialogues == ()
    (reason,) = corpus.rejected
    assert corpus.rejected[reason] == ["extes-0000"]
    return reason


def test_a_clean_record_becomes_a_dialogue(read):
    (dialogue,) = read(record(user("I lost my job."), ai("That hurts.", "Reflective Statements"), *REST)).dialogues
    assert (dialogue.id, dialogue.scene, dialogue.description) == ("extes-0000", "work", "a hard week")
    assert dialogue.turns == (
        Turn(SEEKER, "I lost my job."),
        Turn(SUPPORTER, "That hurts.", "Emotional Validation"),
        *REST_READ,
    )


@pytest.mark.parametrize(
    ("label", "strategy"),
    [  # Table 8
        ("Emotional Validation", "Emotional Validation"),
        ("Reflective Statements", "Emotional Validation"),
        ("Clarification", "Emotional Validation"),
        ("Normalize Experiences", "Emotional Validation"),
        ("Affirmation", "Affirmation"),
        ("Offer Hope", "Affirmation"),
        ("Collaborative Planning", "Collaborative Planning"),
        ("Suggest Options", "Collaborative Planning"),
        ("Stress Management", "Collaborative Planning"),
        ("Promote Self-Care Practices", "Collaborative Planning"),
        ("Empathetic Statements", "Empathetic Statements"),
        ("Avoid Judgment and Criticism", "Avoid Judgment and Criticism"),
        ("Provide Different Perspectives", "Provide Different Perspectives"),
        ("Reframe Negative Thoughts", "Reframe Negative Thoughts"),
        ("Share Information", "Share Information"),
        ("  oFFER hope ", "Affirmation"),
        (["Offer Hope"], "Affirmation"),
    ],
)
def test_labels_are_mapped_whatever_their_case(read, label, strategy):
    assert read_turns(read, user("Hi."), ai("Hello.", label), *REST)[1].strategy == strategy


@pytest.mark.parametrize(
    "turn",
    [
        {"AI": "Hello.", "AI strategy": "Clarification"},
        {"AI": "Hello.", "strategy": "Clarification"},
        {"AI": "Hello.", "STRATEGY ": "clarification"},
        {" ai": "Hello.", "ai_strategy": "Clarification"},
        {"AI": {"text": "Hello.", "AI Strategy": "Clarification"}},
        {"AI": {"AI": "Hello.", "strategy": "Clarification"}},
        {"AI": {"whatever": "Hello.", "AI strategy": "Clarification"}},
        {"AI": [{"text": "Hello.", "strategy": "Clarification"}]},
        {"AI": {"text": "Hello.", "strategy": "Affirmation"}, "AI Strategy": "Clarification"},
        {"AI": {"text": "Hello.", "strategy": "Clarification"}, "AI Strategy": None},
    ],
)
def test_the_strategy_is_found_under_every_known_spelling(read, turn):
    assert read_turns(read, user("Hi."), turn, *REST)[1] == Turn(SUPPORTER, "Hello.", "Emotional Validation")


def test_a_strategy_in_the_seekers_words_is_not_the_supporters(read):
    turn = {"User": {"text": "Hi.", "strategy": "Affirmation"}, "AI": "Hello."}
    assert only_reason(read(record(turn, *REST))) == Reason.NO_STRATEGY


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (["I am", "so tired."], "I am so tired."),
        ({"text": "I am so tired."}, "I am so tired."),
        ({"text": "I am so tired.", "emotion": "sad"}, "I am so tired."),
        ({"first": "I am", "then": ["so", {"last": "tired."}]}, "I am so tired."),
        (["I am so tired.", None, "", True], "I am so tired."),
        (" I am\n so  tired.\n", "I am so tired."),
        (42, "42"),
        (4.5, "4.5"),
        ("half a pair: \ud83d", "half a pair: ?"),
    ],
)
def test_utterances_of_every_form_are_read(read, raw, words):
    assert read_turns(read, {"uSER": raw}, ai(raw), *REST)[:2] == (Turn(SEEKER, words), Turn(SUPPORTER, words, "Affirmation"))


def test_both_speakers_in_one_entry_follow_the_previous_speaker(read):
    both = {"AI": "a", "User": "u", "AI Strategy": "Affirmation"}
    # Nobody or the supporter before: the seeker goes first; the seeker before: the supporter goes first.
    turns = read_turns(read, both, {**both, "User": "v", "AI": "b"}, user("w"), {**both, "AI": "c", "User": "x"}, ai("d"))
    assert [turn.text for turn in turns] == ["u", "a", "v", "b", "w", "c", "x", "d"]
    assert [turn.speaker for turn in turns] == [SEEKER, SUPPORTER] * 4


@pytest.mark.parametrize("nothing", [{}, None, "", [], {"User": ""}, {"AI": None, "AI Strategy": " "}, {"note": None}])
def test_a_turn_that_holds_nothing_is_skipped(read, nothing):
    turns = read_turns(read, user("Hi."), nothing, ai("Hello."), *REST)
    assert turns == (Turn(SEEKER, "Hi."), Turn(SUPPORTER, "Hello.", "Affirmation"), *REST_READ)


def test_a_supporter_turn_without_words_is_left_out_alone_and_counted(read):
    corpus = read(record(user("Hi."), ai(""), {**user("Well."), "AI": None, "AI Strategy": "Others"}, ai("Hello."), *REST))
    assert corpus.dialogues[0].turns == (Turn(SEEKER, "Hi. Well."), Turn(SUPPORTER, "Hello.", "Affirmation"), *REST_READ)
    assert corpus.parts == {"turns left out: a supporter turn with a strategy but without text": 2}


def test_neighbouring_turns_of_one_speaker_are_merged_and_the_last_strategy_counts(read):
    turns = read_turns(
        read, user("Hi."), user("I am sad."), ai("Oh no.", "Empathetic Statements"), ai("You can.", "Affirmation"), *REST
    )
    assert turns == (Turn(SEEKER, "Hi. I am sad."), Turn(SUPPORTER, "Oh no. You can.", "Affirmation"), *REST_READ)


def test_a_dialogue_may_open_with_the_supporter_but_that_turn_answers_nothing(read):
    assert len(read_turns(read, ai("Hello."), user("Hi."), ai("Go on."), *REST)) == 5
    assert only_reason(read(record(ai("Hello."), *REST))) == Reason.TOO_SHORT


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("text", Reason.NOT_A_RECORD),
        (None, Reason.NOT_A_RECORD),
        ([user("Hi.")], Reason.NOT_A_RECORD),
        ({}, Reason.NO_CONTENT),
        ({"scene": "work", "content": None}, Reason.NO_CONTENT),
        ({"content": []}, Reason.NO_CONTENT),
        ({"content": {"0": user("Hi.")}}, Reason.NO_CONTENT),
        (record(user("Hi."), {"Other": "Hello."}, ai("Hello."), *REST), Reason.NO_SPEAKER),
        (record(user("Hi."), "AI: Hello.", ai("Hello."), *REST), Reason.NO_SPEAKER),
        (record(user("Hi."), {"AI Strategy": "Affirmation"}, ai("Hello."), *REST), Reason.NO_SPEAKER),
        (record(user("Hi."), ai(""), *REST), Reason.NO_TEXT),
        (record(user("Hi."), {"AI": "Hello."}, *REST), Reason.NO_STRATEGY),
        (record(user("Hi."), ai("Hello.", None), *REST), Reason.NO_STRATEGY),
        (record(user("Hi."), ai("Hello.", "Others"), *REST), Reason.OTHERS),
        (record(user("Hi."), ai("Hello.", " other"), *REST), Reason.OTHERS),
        (record(user("Hi."), ai("Hello.", "Small Talk"), *REST), Reason.UNKNOWN_STRATEGY),
        (record(user("Hi."), ai("Hello.", ["Affirmation", "Offer Hope"]), *REST), Reason.UNKNOWN_STRATEGY),
        (record(ai("Hello."), ai("Hello?")), Reason.NO_SEEKER),
        (record({}, {}), Reason.NO_SEEKER),
        (record(user("Hi."), ai("Hello."), user("Bye.")), Reason.TOO_SHORT),
        # the first fault met is the one counted
        (record(user("Hi."), ai("Hello.", "Others"), user("Hm."), {"AI": "Hello."}), Reason.OTHERS),
    ],
)
def test_an_unusable_record_is_rejected_for_one_reason(read, raw, reason):
    assert only_reason(read(raw)) == reason


def test_ids_are_positions_in_the_file(read):
    good, other = record(user("Hi."), ai("Hello."), *REST), record(user("Hey."), ai("Hello."), *REST)
    corpus = read("junk", good, other, good)
    assert [dialogue.id for dialogue in corpus.dialogues] == ["extes-0001", "extes-0002", "extes-0003"]
    assert corpus.rejected == {Reason.NOT_A_RECORD: ["extes-0000"]}


GOOD = [record(user(f"Hi {i}."), ai("Hello."), *REST) for i in range(3)]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(GOOD, indent=2),
        "\ufeff" + json.dumps(GOOD),
        json.dumps({"Data": GOOD}),
        "\n".join(map(json.dumps, GOOD)),
        "\n\n".join(map(json.dumps, GOOD)) + "\r\n",
    ],
    ids=["list", "byte order mark", "data", "lines", "blank lines"],
)
def test_every_form_of_file_is_read(tmp_path, content):
    path = tmp_path / "raw.json"
    path.write_text(content, encoding="utf-8", newline="")
    assert [dialogue.turns[0].text for dialogue in read_extes(path, EXTES).dialogues] == ["Hi 0.", "Hi 1.", "Hi 2."]


def test_one_line_of_json_lines_is_one_record(tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_text(json.dumps(GOOD[0]) + "\n")
    assert len(read_extes(path, EXTES, prefix="mine").dialogues) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'[{"scene": "work"},\n {"scene" "home"}]', r"raw\.json:2:11: not valid JSON"),
        (b'{"content": []}\n{"content": []}\n{"content"', r"raw\.json:3:11: not valid JSON"),
        (b"once upon a time", r"raw\.json:1:1: not valid JSON"),
        (b" \n", "empty"),
        (b'"words"', "expected a list of records"),
        (b'{"train": [], "test": []}', "found an object with the keys train, test; make each a file of its own"),
        (b'{"0": {"turns": []}, "1": {"turns": []}}', "found an object with the keys 0, 1$"),
        (b'["caf\xe9"]', "byte 5: not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"1" * 5000 + b"]", "too many digits"),
    ],
)
def test_a_file_that_is_no_corpus_is_a_user_error_with_its_place(tmp_path, content, says):
    path = tmp_path / "raw.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_extes(path, EXTES)
    assert "raw.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_extes(tmp_path / "none.json", EXTES)
    with pytest.raises(UserError, match="cannot be read"):
        read_extes(tmp_path, EXTES)


WORDS = st.sampled_from(["User", "AI", "AI Strategy", "strategy", "content", "scene", "Affirmation", "Others", "", "text"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5)
)
TURNS = st.fixed_dictionaries(
    {}, optional={"User": JSON, "AI": JSON, "AI Strategy": JSON | st.just("Affirmation"), "strategy": JSON}
)
CLEAN = st.lists(st.sampled_from([user("Hi."), ai("Hello."), {**user("Hm."), **ai("Oh.")}]), max_size=8)
RECORDS = st.fixed_dictionaries({"content": CLEAN | st.lists(TURNS | JSON, max_size=8) | JSON}, optional={"scene": JSON}) | JSON


@settings(max_examples=100, deadline=None)
@given(records=st.lists(RECORDS, max_size=6))
def test_whatever_the_records_are_each_is_kept_or_counted(tmp_path_factory, records):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_text(json.dumps(records))
    corpus = read_extes(path, EXTES)
    ids = [dialogue.id for dialogue in corpus.dialogues] + [name for names in corpus.rejected.values() for name in names]
    assert sorted(ids) == [f"extes-{index:04d}" for index in range(len(records))]
    assert set(corpus.rejected) <= set(Reason)
    for dialogue in corpus.dialogues:
        assert all(turn.text and (turn.strategy in EXTES.names) == (turn.speaker == SUPPORTER) for turn in dialogue.turns)
        assert all(a.speaker != b.speaker for a, b in zip(dialogue.turns, dialogue.turns[1:], strict=False))
        assert len(list(dialogue.supporter_turns())) >= 2
        (dialogue.scene + dialogue.description + "".join(turn.text for turn in dialogue.turns)).encode("utf-8")


def test_nesting_as_deep_as_json_allows_is_survived(read):
    deep = "[" * 900 + '"words"' + "]" * 900
    assert only_reason(read({"content": [{"User": json.loads(deep)}, ai("Hello.")]})) == Reason.NO_SEEKER
