"""The published ESC-Pro, nested and as pairs: dialogues, what is dispreferred, rejects, the split by seeds, rows without a search."""

import pytest
from project import run_py

from cso_lab.core.files import read_json, read_jsonl
from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import EXTES
from cso_lab.corpora.escpro import read_escpro
from cso_lab.preferences.published_escpro import expanded_paths
from cso_lab.preferences.rows import pair_rows, sft_rows
from cso_lab.preferences.statistics import table5

A, B, C = "Affirmation", "Share Information", "Empathetic Statements"


def user(content):
    return {"role": "user", "content": content}


def helper(content, strategy, *negative):
    return {
        "role": "assistant",
        "content": content,
        "strategy": strategy,
        "negative": [{"content": words, "strategy": name} for words, name in negative],
    }


def record(*messages, scene="Work"):
    return {"scene": scene, "description": "I lost my job.", "messages": list(messages)}


# Two dialogues that grew from one seed and part at the second supporter turn.
FIRST = record(user("k0"), helper("a", A, ("b", B)), user("k1"), helper("a2", A, ("c2", C), ("b2", B)), user("bye"))
SECOND = record(user("k0"), helper("a", A, ("b", B)), user("k1"), helper("e2", C, ("b2", B)))
PAIRS = [
    {"messages": [user("k0")], "chosen": {"content": "a", "strategy": A}, "reject": {"content": "b", "strategy": B}},
    {
        "messages": [{"role": "system", "content": "Help."}, user("k0"), {"role": "assistant", "content": "a"}, user("k1")],
        "chosen": f"({A}) a2",
        "reject": f"({C}) c2",
    },
    {
        "messages": [user("k0"), {"role": "assistant", "content": f"({A}) a"}, user("k1")],
        "chosen": f"({A}) a2",
        "reject": [{"role": "assistant", "content": f"[{B}] b2"}],
    },
]


def rows(corpus):
    return pair_rows(expanded_paths(corpus, corpus.dialogues), EXTES)


def test_turns_and_what_is_dispreferred(raw_file):
    corpus = read_escpro(raw_file([FIRST, SECOND]), EXTES)
    first = corpus.dialogues[0]
    assert (first.id, first.scene, first.description) == ("escpro-0000", "Work", "I lost my job.")
    assert first.turns == (
        *(Turn(SEEKER, "k0"), Turn(SUPPORTER, "a", A), Turn(SEEKER, "k1"), Turn(SUPPORTER, "a2", A), Turn(SEEKER, "bye")),
    )
    assert corpus.negatives["escpro-0000"] == {
        1: (Turn(SUPPORTER, "b", B),),
        3: (Turn(SUPPORTER, "c2", C), Turn(SUPPORTER, "b2", B)),
    }


def test_dialogues_of_one_seed_share_a_tree_and_its_pairs(raw_file):
    corpus = read_escpro(raw_file([FIRST, SECOND]), EXTES)
    paths = expanded_paths(corpus, corpus.dialogues)
    assert [(path.dialogue, len(path.choices)) for path in paths] == [("escpro-0000", 2), ("escpro-0000", 2)]
    found = [(row["chosen"][0]["content"], row["rejected"][0]["content"], row["q_chosen"]) for row in rows(corpus)]
    assert found == [
        (f"({A}) a", f"({B}) b", None),
        (f"({A}) a2", f"({C}) c2", None),
        (f"({A}) a2", f"({B}) b2", None),
        (f"({C}) e2", f"({B}) b2", None),
    ]
    assert [row["strategy"] for row in sft_rows(paths, EXTES)] == [A, A, C]
    counts = table5(None, paths)
    assert counts["seed"]["dialogues"] is None and counts["per_path"]["all"]["dialogues"] == 2
    # once each: k0, k1; a, a2, e2; b, c2, b2
    assert [counts["distinct"][part]["utterances"] for part in ("seeker", "preferred", "dispreferred")] == [2, 3, 3]


def test_pairs_are_put_together_to_the_same_rows(raw_file):
    nested = read_escpro(raw_file([FIRST | {"scene": "", "description": ""}]), EXTES)
    wanted = [(row["prompt"], row["chosen"], row["rejected"]) for row in rows(nested)]
    corpus = read_escpro(raw_file(PAIRS), EXTES)
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in rows(corpus)] == wanted
    # what a record's last seeker turn said is in no pair
    assert corpus.dialogues[0].turns == nested.dialogues[0].turns[:-1]


def test_what_cannot_be_read_is_left_out_and_counted(raw_file):
    dirty = [
        "nothing",
        {"scene": "Work"},
        record(user("k0"), helper("a", "Hypnosis"), user("k1"), helper("b", A)),
        record(user("k0"), helper("a", ""), user("k1"), helper("b", A)),
        record(user("k0"), helper("", A), user("k1"), helper("b", A)),
        record(user("k0"), {"role": "narrator", "content": "x"}, helper("a", A), user("k1"), helper("b", A)),
        record(helper("a", A), helper("b", A)),
        record(user("k0"), helper("a", A)),
        FIRST,
    ]
    corpus = read_escpro(raw_file(dirty), EXTES)
    assert [dialogue.id for dialogue in corpus.dialogues] == ["escpro-0008"]
    account = corpus.rejects()
    assert (account["records"], account["usable"], account["dialogues"]) == (9, 1, 1)
    assert {reason: entry["count"] for reason, entry in account["rejected"].items()} == {
        "not a record": 1,
        "no content": 1,
        "a supporter turn with an unknown strategy": 1,
        "a supporter turn without a strategy": 1,
        "a supporter turn with a strategy but without text": 1,
        "a turn without a speaker": 1,
        "no seeker turn": 1,
        "fewer than 2 supporter turns after a seeker turn": 1,
    }
    assert account["unknown_labels"] == {"Hypnosis": {"count": 1, "nearest": None}}


def test_a_negative_that_cannot_be_read_is_left_out_alone(raw_file):
    bad = [("b", "Hypnosis"), ("", B), ("b", ""), ("a", A), ("b", "Share Informations"), ("d", B)]
    corpus = read_escpro(raw_file([record(user("k0"), helper("a", A, *bad), user("k1"), helper("b", A))]), EXTES)
    assert corpus.negatives == {"escpro-0000": {1: (Turn(SUPPORTER, "d", B),), 3: ()}}
    assert corpus.parts == {
        "dispreferred replies left out: a supporter turn with an unknown strategy": 2,
        "dispreferred replies left out: a supporter turn with a strategy but without text": 1,
        "dispreferred replies left out: a supporter turn without a strategy": 1,
        "dispreferred replies left out: the same as what is preferred": 1,
    }
    assert [str(label) for label in corpus.unknown] == ["'Hypnosis' 1", "'Share Informations' 1 (nearest: 'Share Information')"]
    assert "in usable dialogues, 2 dispreferred replies left out: a supporter turn with an unknown strategy" in str(corpus)


def test_supporter_turns_around_a_blank_seeker_message_are_merged_and_what_was_beside_them_is_left_out(raw_file):
    rest = (user("k1"), helper("c", C, ("b2", B)))
    plain = record(user("k0"), helper("a", A), user(" "), helper("b", B), *rest)
    beside = record(user("k0"), helper("a", A, ("x", C)), user(""), helper("b", B, ("y", C), ("z", C)), *rest)
    for records, lost in (([plain], {}), ([beside], {"dispreferred replies left out: beside merged supporter turns": 3})):
        corpus = read_escpro(raw_file(records), EXTES)
        merged = Turn(SUPPORTER, "a b", B)
        assert corpus.dialogues[0].turns == (Turn(SEEKER, "k0"), merged, Turn(SEEKER, "k1"), Turn(SUPPORTER, "c", C))
        assert corpus.negatives["escpro-0000"] == {1: (), 3: (Turn(SUPPORTER, "b2", B),)}
        assert corpus.parts == {"supporter turns merged with the one before, no seeker turn lying between": 1, **lost}


def test_a_preferred_turn_that_cannot_be_read_is_no_choice_and_the_others_are(raw_file):
    messages = (
        user("k0"),
        helper("a", A, ("b", B)),
        user("k1"),
        helper("e", "Hypnosis", ("b", B)),
        user("k2"),
        helper("a2", C, ("b2", B)),
    )
    corpus = read_escpro(raw_file([record(*messages)]), EXTES)
    assert [row["chosen"][0]["content"] for row in rows(corpus)] == [f"({A}) a", f"({C}) a2"]
    assert [row["strategy"] for row in sft_rows(expanded_paths(corpus, corpus.dialogues), EXTES)] == [A, C]
    assert rows(corpus)[1]["prompt"][-2:] == [{"role": "assistant", "content": "e"}, {"role": "user", "content": "k2"}]
    assert corpus.parts == {
        "dispreferred replies left out: beside a supporter turn with an unknown strategy": 1,
        "turns kept as history alone: a supporter turn with an unknown strategy": 1,
    }
    blank = record(user("k0"), helper("", A, ("x", C)), user("k1"), helper("a", A, ("b", B)), user("k2"), helper("c", C))
    corpus = read_escpro(raw_file([blank]), EXTES)
    assert [turn.text for turn in corpus.dialogues[0].turns] == ["k0 k1", "a", "k2", "c"]
    assert corpus.parts["turns left out: a supporter turn with a strategy but without text"] == 1


def test_a_pair_that_cannot_be_read_is_left_out_alone_and_records_are_those_of_the_file(raw_file):
    unreadable = {"messages": [user("k0")], "chosen": "no strategy", "reject": f"({B}) b"}
    unknown = {"messages": [user("k0")], "chosen": f"({A}) a", "reject": "(Hypnosis) b"}
    corpus = read_escpro(raw_file([*PAIRS, unreadable, {"messages": [user("k0")], "chosen": f"({A}) a"}, unknown]), EXTES)
    assert corpus.rejected == {
        "a supporter turn without a strategy": ["escpro-pair-0003"],
        "no content": ["escpro-pair-0004"],
        "a supporter turn with an unknown strategy": ["escpro-pair-0005"],
    }
    assert str(corpus).splitlines()[0] == "3 of 6 records are usable: 1 dialogues (4 turns)"
    assert corpus.rejects()["unknown_labels"] == {"Hypnosis": {"count": 1, "nearest": None}}


def test_what_grew_from_one_seed_is_on_one_side_and_tested_once(raw_file):
    records = [one | {"scene": f"scene {i}"} for i in range(20) for one in (FIRST, SECOND)]
    corpus = read_escpro(raw_file(records), EXTES)
    train, test = corpus.split(0.25, 0)
    assert (len(train), len(test)) == (30, 5)
    assert not {dialogue.scene for dialogue in train} & {dialogue.scene for dialogue in test}
    assert len({dialogue.scene for dialogue in test}) == 5
    assert corpus.split(0.25, 1)[1] != test and corpus.split(0, 0) == (corpus.dialogues, ())


def test_training_data_without_a_search(raw_file, tmp_path):
    records = [one | {"scene": f"scene {i}"} for i in range(10) for one in (FIRST, SECOND)]
    line = ["data=escpro", f"data.path={raw_file([*records, 'dirty'])}", f"shared_dir={tmp_path}/shared"]
    done = run_py(*line, "stages=[search,dataset]", f"hydra.run.dir={tmp_path}/run", "preferences.dialogues=6")
    assert done.returncode == 0, done.stderr
    assert "data=escpro is expanded already: there is nothing to search" in done.stdout
    assert "left out 1: not a record" in done.stdout
    stages = read_json(tmp_path / "run" / "stages.json")
    assert set(stages) == {"dataset"}
    folder = tmp_path / "shared" / "dataset"
    [dataset] = folder.iterdir()
    assert read_json(dataset / "statistics.json")["table5"]["per_path"]["all"]["dialogues"] == 6
    assert all(row["q_chosen"] is None for row in read_jsonl(dataset / "preferences" / "pairs.jsonl"))


@pytest.mark.long
def test_without_pairs_the_advice_is_about_the_file_and_sft_goes_on(raw_file, tmp_path):
    file = raw_file([record(user(f"k{i}"), helper("a", A), user("so"), helper("b", B)) for i in range(10)])
    line = [
        "data=escpro",
        f"data.path={file}",
        f"shared_dir={tmp_path}/shared",
        f"hydra.run.dir={tmp_path}/run",
        "stages=[dataset]",
    ]
    done = run_py(*line)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: there is no preference pair in {file}: what is dispreferred stands there under `negative`"
    )
    assert done.stderr.endswith("; algo=sft needs none\n") and "mcts" not in done.stderr
    done = run_py(*line, "algo=sft", "stages=[dataset,train]", "training.max_steps=1", "backbone=tiny_llama")
    assert done.returncode == 0, done.stderr
    assert len(read_jsonl(next((tmp_path / "shared" / "dataset").glob("*/preferences/sft.jsonl")))) == 18
