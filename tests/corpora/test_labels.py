"""Strategy labels that a set does not know: named with their counts, mapped by the user, loud where they cost much."""

import pytest
from omegaconf import OmegaConf
from project import composed, option

from cso_lab.core.errors import UserError
from cso_lab.core.strategies import ESCONV, EXTES
from cso_lab.corpora import load
from cso_lab.corpora.esconv import read_esconv
from cso_lab.corpora.extes import read_extes
from cso_lab.pipeline.cell_names import cell_name
from cso_lab.pipeline.check import check


def esconv(*labels):
    turns = [
        turn
        for label in labels
        for turn in (
            {"speaker": "seeker", "content": "a", "annotation": {}},
            {"speaker": "supporter", "content": "b", "annotation": {"strategy": label}},
        )
    ]
    return {"dialog": turns}


RELABELLED = [
    *(esconv("Question", "Greeting", "Greeting") for _ in range(3)),
    esconv("Questionning", "Reassurance"),
    *[esconv("Question", "Others")] * 6,
]


def config(path, **values):
    return OmegaConf.merge(option("data", "esconv"), {"path": str(path), **values})


def test_unknown_labels_are_listed_with_all_their_counts_and_the_nearest_known_one(raw_file):
    corpus = read_esconv(raw_file(RELABELLED), ESCONV)
    listed = str(corpus).splitlines()[-1].removeprefix("  labels of no strategy: ").split(", ")
    assert listed[:2] == ["'Greeting' 6", "'Questionning' 1 (nearest: 'Question')"]
    assert listed[2] == "'Reassurance' 1 (nearest: 'Affirmation and Reassurance')"
    assert corpus.rejects()["unknown_labels"]["Questionning"] == {"count": 1, "nearest": "Question"}


def test_a_loss_of_more_than_a_tenth_is_a_warning_that_names_the_labels_and_the_key(raw_file, capsys):
    load(config(raw_file(RELABELLED)))
    said = capsys.readouterr().err
    assert said.startswith(
        "WARNING: 4 of 10 records of data.path are left out (4: a supporter turn with an unknown strategy; labels of no"
    )
    assert "'Greeting' 6" in said and "data.labels={LABEL: STRATEGY}" in said and said.count("\n") == 1
    load(config(raw_file([esconv("Greeting", "Question"), *[esconv("Question", "Others")] * 9])))
    assert capsys.readouterr().err == ""


def test_labels_are_mapped_by_the_configuration_and_are_part_of_what_a_result_is_known_by(raw_file):
    file = raw_file(RELABELLED)
    mapped = composed(
        "data=esconv",
        f"data.path={file}",
        "data.labels={Greeting: Others, Questionning: Question, Reassurance: Affirmation and Reassurance}",
    )
    corpus = load(mapped.data)
    assert not corpus.rejected and [turn.strategy for turn in corpus.dialogues[0].turns[1::2]] == [
        "Question",
        "Others",
        "Others",
    ]
    assert cell_name(mapped) != cell_name(composed("data=esconv", f"data.path={file}"))


@pytest.mark.parametrize("labels", ["{Greeting: Other thing}", "Greeting", "[Greeting]"])
def test_a_label_that_would_mean_nothing_is_refused_before_any_work(raw_file, labels):
    with pytest.raises(UserError, match=r"^data\.labels="):
        check(composed("data=esconv", f"data.path={raw_file(RELABELLED)}", f"data.labels={labels}"))


@pytest.mark.parametrize(
    ("label", "strategy"),
    [
        ("Offer Hope (OH)", "Affirmation"),
        ("offer hope [oh]. ", "Affirmation"),
        ("Affirmation (Offer Hope)", "Affirmation"),
        ("Affirmation (Share Information)", None),
        ("Hypnosis (Affirmation)", None),
        ("(Affirmation)", "Affirmation"),
    ],
)
def test_a_remark_in_brackets_after_a_label_is_understood_where_it_is_no_other_strategy(raw_file, label, strategy):
    turns = [{"User": "a"}, {"AI": "b", "AI Strategy": label}, {"User": "c"}, {"AI": "d", "AI Strategy": "Affirmation"}]
    corpus = read_extes(raw_file([{"content": turns}]), EXTES)
    assert [dialogue.turns[1].strategy for dialogue in corpus.dialogues] == ([strategy] if strategy else [])
    assert [entry.label for entry in corpus.unknown] == ([] if strategy else [label])


def test_others_with_a_remark_is_others(raw_file):
    turns = [{"User": "a"}, {"AI": "b", "AI Strategy": "Others (greeting)"}] * 2
    assert list(read_extes(raw_file([{"content": turns}]), EXTES).rejected) == ["a supporter turn labelled Others"]
