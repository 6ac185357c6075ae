"""The published ESC-Pro, nested and as pairs: dialogues, what is dispreferred, rejects, the split by seeds, rows without a search."""

import json

import pytest
from project import composed, run_py

from cso_lab.corpora.escpro import read_escpro
from cso_lab.dialogue import SEEKER, SUPPORTER, Turn
from cso_lab.files import read_json, read_jsonl
from cso_lab.preferences.authors import expanded_paths
from cso_lab.preferences.rows import pair_rows, sft_rows
from cso_lab.preferences.statistics import table5
from cso_lab.strategies import EXTES

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
        record(user("k0"), helper("a", A, ("b", "Hypnosis")), user("k1"), helper("b", A)),
        record(user("k0"), helper("", A), user("k1"), helper("b", A)),
        record(user("k0"), helper("a", A), helper("b", A), user("k1"), helper("b", A)),
        record(user("k0"), {"role": "narrator", "content": "x"}, helper("a", A), user("k1"), helper("b", A)),
        record(helper("a", A), helper("b", A)),
        record(user("k0"), helper("a", A)),
        FIRST,
    ]
    corpus = read_escpro(raw_file(dirty), EXTES)
    assert [dialogue.id for dialogue in corpus.dialogues] == ["escpro-0010"]
    account = corpus.rejects()
    assert (account["records"], account["usable"]) == (11, 1)
    assert {reason: entry["count"] for reason, entry in account["rejected"].items()} == {
        "not a record": 1,
        "no content": 1,
        "a supporter turn with an unknown strategy": 2,
        "a supporter turn without a strategy": 1,
        "a supporter turn with a strategy but without text": 1,
        "two supporter turns in a row": 2,
        "a turn without a speaker": 1,
        "fewer than 2 supporter turns after a seeker turn": 1,
    }
    unreadable = {"messages": [user("k0")], "chosen": "no strategy", "reject": f"({B}) b"}
    corpus = read_escpro(raw_file([*PAIRS, unreadable, {"messages": [user("k0")], "chosen": f"({A}) a"}]), EXTES)
    assert corpus.rejected == {
        "a supporter turn without a strategy": ["escpro-pair-0003"],
        "no content": ["escpro-pair-0004"],
    }


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


def test_what_is_no_file_and_cannot_be_had_from_the_hub_is_one_line(tmp_path, monkeypatch):
    import datasets
    import huggingface_hub

    from cso_lab.corpora import data_file
    from cso_lab.errors import UserError

    # Both have read HF_HUB_OFFLINE when they were imported, and would try the network for a long while.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="^data.path=nobody/nothing: no such file, and the hub gives no data set"):
        data_file(composed("data=escpro", "data.path=nobody/nothing").data)
    with pytest.raises(UserError, match="no such file; give data.path=FILE"):
        data_file(composed("data=escpro", "data.path=some/file.json").data)
    fetched = tmp_path / "cso_lab" / "hub" / "nobody--something.jsonl"
    fetched.parent.mkdir(parents=True)
    fetched.write_text(json.dumps(FIRST), encoding="utf-8")
    assert data_file(composed("data=escpro", "data.path=nobody/something").data) == fetched
