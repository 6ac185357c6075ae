import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import ESCONV
from cso_lab.corpora import Reason
from cso_lab.corpora.esconv import read_esconv


def seeker(words, name="seeker"):
    return {"speaker": name, "annotation": {}, "content": words}


def supporter(words, strategy, name="supporter"):
    return {"speaker": name, "annotation": {"strategy": strategy}, "content": words}


def record(*turns):
    return {
        "experience_type": "Current Experience",
        "emotion_type": "anxiety",
        "problem_type": "job crisis",
        "situation": "My shop may close.\n",
        "dialog": list(turns),
    }


REST = (seeker("Maybe."), supporter("You will.", "Affirmation and Reassurance"))
REST_READ = (Turn(SEEKER, "Maybe."), Turn(SUPPORTER, "You will.", "Affirmation and Reassurance"))


@pytest.fixture
def read(raw_file):
    return lambda *records: read_esconv(raw_file(records), ESCONV)


def test_a_clean_record_becomes_a_dialogue(read):
    corpus = read(record(seeker("Hello\n"), supporter("What happened?", "Question"), *REST))
    (dialogue,) = corpus.dialogues
    assert (dialogue.id, dialogue.scene, dialogue.description) == (
        "esconv-0000",
        "job crisis (anxiety)",
        "My shop may close.",
    )
    assert dialogue.turns == (Turn(SEEKER, "Hello"), Turn(SUPPORTER, "What happened?", "Question"), *REST_READ)
    assert corpus.rejected == {}


@pytest.mark.parametrize(
    ("seeks", "supports"), [("seeker", "supporter"), ("speaker", "listener"), ("usr", "sys"), ("User", " SYS")]
)
def test_the_speakers_go_by_several_names(read, seeks, supports):
    corpus = read(record(seeker("Hello", seeks), supporter("Why?", "Questions", supports), *REST))
    assert corpus.dialogues[0].turns[:2] == (Turn(SEEKER, "Hello"), Turn(SUPPORTER, "Why?", "Question"))


@pytest.mark.parametrize(
    ("labels", "strategy"),
    [
        (("Question", "Others"), "Question"),
        (("Question", "Information", "Other"), "Information"),
        (("Others", "Reflection of feelings"), "Reflection of Feelings"),
        (("Others", "Others"), "Others"),
    ],
)
def test_merged_supporter_turns_take_the_last_strategy_that_is_not_others(read, labels, strategy):
    said = [supporter(f"{i}.", name) for i, name in enumerate(labels)]
    turns = read(record(seeker("a"), seeker("b"), *said, *REST)).dialogues[0].turns
    assert turns == (Turn(SEEKER, "a b"), Turn(SUPPORTER, " ".join(turn["content"] for turn in said), strategy), *REST_READ)


def test_a_turn_without_words_is_skipped(read):
    corpus = read(record(seeker("a"), seeker(" \n"), {}, None, supporter("b", "Others"), *REST))
    assert corpus.dialogues[0].turns == (Turn(SEEKER, "a"), Turn(SUPPORTER, "b", "Others"), *REST_READ)


def test_a_supporter_turn_without_words_is_left_out_alone_and_counted(read):
    corpus = read(record(seeker("a"), supporter(" ", "Question"), seeker("b"), supporter("c", "Question"), *REST))
    assert corpus.dialogues[0].turns == (Turn(SEEKER, "a b"), Turn(SUPPORTER, "c", "Question"), *REST_READ)
    assert corpus.parts == {"turns left out: a supporter turn with a strategy but without text": 1}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (7, Reason.NOT_A_RECORD),
        ({"dialog": "Hello"}, Reason.NO_CONTENT),
        (record(), Reason.NO_CONTENT),
        (record(seeker("a", "narrator"), *REST, *REST), Reason.NO_SPEAKER),
        (record("a", *REST, *REST), Reason.NO_SPEAKER),
        (record(seeker("a"), supporter("", "Question"), *REST), Reason.NO_TEXT),
        (record(seeker("a"), {"speaker": "supporter", "content": "b", "annotation": None}, *REST), Reason.NO_STRATEGY),
        (record(seeker("a"), supporter("b", "Hypnosis"), *REST), Reason.UNKNOWN_STRATEGY),
        (record(supporter("b", "Question")), Reason.NO_SEEKER),
        (record(seeker("a"), supporter("b", "Question"), supporter("c", "Question")), Reason.TOO_SHORT),
    ],
)
def test_an_unusable_record_is_rejected_for_one_reason(read, raw, reason):
    corpus = read(raw)
    assert corpus.dialogues == () and corpus.rejected == {reason: ["esconv-0000"]}


WORDS = st.sampled_from(["speaker", "seeker", "supporter", "annotation", "strategy", "content", "Question", "Others", ""])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | WORDS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
)
TURNS = st.builds(
    lambda speaker, words, name: {"speaker": speaker, "content": words, "annotation": name},
    WORDS | JSON,
    JSON,
    st.just({"strategy": "Question"}) | JSON,
)


CLEAN = st.lists(st.sampled_from([seeker("a"), supporter("b", "Question"), supporter("c", "Others")]), max_size=8)
RECORDS = st.builds(lambda turns: {"dialog": turns}, CLEAN | st.lists(TURNS | JSON, max_size=8)) | JSON


@settings(max_examples=80, deadline=None)
@given(records=st.lists(RECORDS, max_size=5))
def test_whatever_the_records_are_each_is_kept_or_counted(tmp_path_factory, records):
    path = tmp_path_factory.getbasetemp() / "fuzz-esconv.json"
    path.write_text(json.dumps(records))
    corpus = read_esconv(path, ESCONV)
    ids = [dialogue.id for dialogue in corpus.dialogues] + [name for names in corpus.rejected.values() for name in names]
    assert sorted(ids) == [f"esconv-{index:04d}" for index in range(len(records))]
    for dialogue in corpus.dialogues:
        assert all(turn.text and (turn.strategy in ESCONV.names) == (turn.speaker == SUPPORTER) for turn in dialogue.turns)
