import json
import subprocess
import sys
from dataclasses import replace

import pytest
from omegaconf import OmegaConf
from project import option

from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn
from cso_lab.corpora import Corpus, Reason, data_file, divide, load, seeds, shard, split

NAMES = ("sample", "extes", "esconv")


def dialogues(count):
    turns = (Turn(SUPPORTER, "Go on.", "Affirmation"), Turn(SEEKER, "Bye."))
    return tuple(Dialogue(f"x-{i:04d}", "work", f"week {i}", (Turn(SEEKER, f"Hi {i}."), *turns)) for i in range(count))


def config(name, **changes):
    return OmegaConf.merge(option("data", name), changes)


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(110, 0.27, 30), (100, 0.1, 10), (10, 0, 0), (4, 0.1, 0), (0, 0.5, 0)]
)
def test_split_takes_the_rounded_share_and_keeps_the_order(count, share, expected):
    everything = dialogues(count)
    train, test = split(everything, share)
    assert len(test) == expected
    assert sorted(train + test, key=lambda dialogue: dialogue.id) == list(everything)
    assert list(train) == sorted(train, key=lambda dialogue: dialogue.id)
    assert list(test) == sorted(test, key=lambda dialogue: dialogue.id)


def test_the_split_is_the_same_on_every_machine_and_another_one_with_another_seed():
    everything = dialogues(40)
    train, test = split(everything, 0.1)
    # By hand: the 4 lowest of sha256('[0, "work", "week i", ["Hi i.", "Go on."]]') over i.
    assert [dialogue.id for dialogue in test] == ["x-0002", "x-0014", "x-0018", "x-0029"]
    assert split(everything, 0.1, seed=1)[1] != test
    assert set(split(everything[::-1], 0.1)[1]) == set(test)


def test_a_rank_depends_neither_on_the_other_dialogues_nor_on_later_turns_nor_on_ids():
    everything = dialogues(40)
    _, test = split(everything, 0.5)
    # Of two dialogues the same one goes first, whoever else is there: a fuller test set only adds.
    assert set(split(everything, 0.25)[1]) < set(test)
    mended = [replace(d, id=f"y{d.id}", turns=(*d.turns[:2], Turn(SEEKER, "See you."))) for d in everything]
    assert [dialogue.id for dialogue in split(mended, 0.5)[1]] == [f"y{dialogue.id}" for dialogue in test]


def test_shards_are_round_robin_disjoint_and_cover_all():
    everything = dialogues(7)
    assert shard(everything, "1/1") == everything
    assert [dialogue.id[-1] for dialogue in shard(everything, "2/3")] == ["1", "4"]
    parts = [shard(everything, f"{i}/3") for i in (1, 2, 3)]
    assert sorted((d for part in parts for d in part), key=lambda dialogue: dialogue.id) == list(everything)
    assert shard(everything[:1], "2/2") == ()


def test_seeds_are_the_first_training_dialogues_then_sharded():
    everything = dialogues(7)
    assert seeds(everything, 5) == everything[:5]
    assert seeds(everything, None) == seeds(everything, 100) == everything
    assert seeds(everything, 5, "2/2") == (everything[1], everything[3])


def test_the_account_of_a_corpus_is_json_and_prints_in_few_lines():
    corpus = Corpus(dialogues(2), {Reason.OTHERS.value: [f"x-{i}" for i in range(5, 9)], Reason.NO_SEEKER.value: ["x-4"]})
    assert json.loads(json.dumps(corpus.rejects())) == {
        "source": "",
        "records": 7,
        "usable": 2,
        "dialogues": 2,
        "rejected": {
            "a supporter turn labelled Others": {"count": 4, "ids": ["x-5", "x-6", "x-7", "x-8"]},
            "no seeker turn": {"count": 1, "ids": ["x-4"]},
        },
        "parts": {},
        "unknown_labels": {},
    }
    assert str(corpus).splitlines() == [
        "2 of 7 records are usable dialogues (6 turns)",
        "  left out 4: a supporter turn labelled Others (x-5, x-6, x-7, ...)",
        "  left out 1: no seeker turn (x-4)",
    ]


EXTES_TURNS = [{"User": "a"}, {"AI": "b", "AI Strategy": "Affirmation"}] * 2
ESCONV_TURNS = [
    {"speaker": "seeker", "content": "a"},
    {"speaker": "supporter", "content": "b", "annotation": {"strategy": "Question"}},
] * 2


@pytest.mark.parametrize(
    ("name", "raw", "strategy"),
    [
        ("sample", {"content": EXTES_TURNS}, "Affirmation"),
        ("extes", {"content": EXTES_TURNS}, "Affirmation"),
        ("esconv", {"dialog": ESCONV_TURNS}, "Question"),
    ],
)
def test_each_config_reads_a_file_of_its_kind(raw_file, name, raw, strategy):
    corpus = load(config(name, path=str(raw_file([raw, None]))))
    assert [(dialogue.id, dialogue.turns[1].strategy) for dialogue in corpus.dialogues] == [(f"{name}-0000", strategy)]
    assert corpus.rejected == {Reason.NOT_A_RECORD: [f"{name}-0001"]}


@pytest.mark.parametrize("name", NAMES)
def test_each_config_has_usable_values(name):
    cfg = config(name)
    train, test = split(dialogues(110), cfg.test_share, cfg.split_seed)
    assert len(test) == {"sample": 30, "extes": 11, "esconv": 11}[name]
    assert seeds(train, cfg.seed_dialogues, cfg.shard) == train[:100]


def test_validation_dialogues_are_some_of_the_training_dialogues_and_the_test_dialogues_stay():
    _, all_training, test = divide(config("sample"))
    _, train, same_test = divide(config("sample", validation_share=0.3))
    _, same_train, validation = divide(config("sample", validation_share=0.3), "validation")
    assert (len(train), len(validation), same_test, same_train) == (56, 24, test, train)
    assert sorted(train + validation, key=all_training.index) == list(all_training)
    assert divide(config("sample"), "validation")[2] == ()


@pytest.mark.parametrize("name", ["extes", "esconv"])
@pytest.mark.parametrize("path", ["???", None, ""])
def test_a_corpus_that_needs_a_file_says_how_to_give_it(name, path):
    with pytest.raises(UserError, match=f"data={name}.*data.path=FILE"):
        load(config(name, path=path))


def test_a_path_that_is_no_file_is_a_user_error(tmp_path):
    for path, says in [
        (str(tmp_path / "none.json"), "no such file"),
        (str(tmp_path), "holds no data file .*; give data.path=FILE"),
        ("pkg://cso_lab.corpora/none.json", "no such file"),
        ("pkg://no_such_package/none.json", "no package 'no_such_package'"),
    ]:
        with pytest.raises(UserError, match=says):
            load(config("extes", path=path))


def test_a_path_within_a_package_is_found():
    assert data_file(config("extes", path="pkg://cso_lab.corpora/corpus.py")).read_text().startswith('"""')


def test_a_file_of_another_kind_a_wrong_strategy_set_and_a_wrong_reader_are_user_errors(raw_file):
    path = raw_file([{"content": EXTES_TURNS}])
    with pytest.raises(UserError, match="no usable dialogue.*1: no content"):
        load(config("esconv", path=str(path)))
    with pytest.raises(UserError, match="did you mean extes|did you mean 'extes'"):
        load(config("extes", path=str(path), strategies="extess"))
    with pytest.raises(UserError, match="data.reader"):
        load(config("extes", path=str(path), reader={"_target_": "cso_lab.corpora.extes.read_nothing"}))
    path.write_text("[]")
    with pytest.raises(UserError, match="it holds no record"):
        load(config("extes", path=str(path)))


def test_importing_the_readers_loads_nothing_heavy():
    heavy = ("torch", "transformers", "litellm", "datasets", "sklearn", "evaluate", "hydra")
    code = f"import sys, cso_lab.corpora.extes, cso_lab.corpora.esconv; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
