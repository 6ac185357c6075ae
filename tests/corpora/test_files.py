"""Every form of file that holds a corpus, and which file a folder means: the same dialogues, known by their content."""

import csv
import gzip
import io
import json
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from project import composed, option

from cso_lab.core.errors import UserError
from cso_lab.corpora import data_file, data_identity, divide, load
from cso_lab.corpora.formats import read_records
from cso_lab.pipeline.cell_names import cell_name


def turns(opening):
    return [
        {"User": opening},
        {"AI": "Go on.", "AI Strategy": "Affirmation"},
        {"User": "So."},
        {"AI": "Yes.", "AI Strategy": "Offer Hope"},
    ]


def record(opening):
    return {"scene": "work", "content": turns(opening)}


RECORDS = [record("one, two"), record('three "four"'), record("fünf")]
NESTED = json.dumps(RECORDS, ensure_ascii=False)


def config(path, data="extes", **values):
    return OmegaConf.merge(option("data", data), {"path": str(path), "test_share": 0, **values})


def openings(corpus):
    return [dialogue.turns[0].text for dialogue in corpus.dialogues]


def table(rows, delimiter=","):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def zipped(**files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return data.getvalue()


def parquet(rows):
    import pyarrow
    from pyarrow import parquet

    data = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), data)
    return data.getvalue()


CELLS = [{"scene": row["scene"], "content": json.dumps(row["content"])} for row in RECORDS]
TEXTS = [{"text": json.dumps(row)} for row in RECORDS]
LINES = "\n".join(map(json.dumps, RECORDS))
FORMS = {
    "list": NESTED,
    "UTF-16": NESTED.encode("utf-16"),
    "by id": json.dumps({f"dialogue {i}": row for i, row in enumerate(RECORDS)}),
    "train": json.dumps({"train": RECORDS}),
    "train by id": json.dumps({"train": dict(enumerate(RECORDS))}),
    "column text": json.dumps(TEXTS),
    "column text, lines": "\n".join(map(json.dumps, TEXTS)),
    "strings": json.dumps([json.dumps(row) for row in RECORDS]),
    "gz": gzip.compress(NESTED.encode()),
    "gz of two": gzip.compress(LINES.encode()[:40]) + gzip.compress(LINES.encode()[40:]),
    "zip": zipped(**{"extes/ExTES__json": NESTED, "README__md": "words", "__MACOSX/._ExTES__json": "x"}),
    "zip of gz": zipped(data__json__gz=gzip.compress(LINES.encode())),
    "parquet": parquet(RECORDS),
    "parquet of text": parquet(TEXTS),
    "gz of parquet": gzip.compress(parquet(CELLS)),
    "CSV": table(CELLS),
    "CSV with a mark": "\ufeff" + table(CELLS),
    "CSV of text": table(TEXTS),
    "TSV": table(CELLS, "\t"),
    "semicolons": table(CELLS, ";"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_dialogues(tmp_path, form):
    file = tmp_path / "data"  # its name says nothing
    file.write_bytes(FORMS[form].encode() if isinstance(FORMS[form], str) else FORMS[form])
    corpus = load(config(file))
    assert openings(corpus) == ["one, two", 'three "four"', "fünf"] and not corpus.rejected
    assert corpus.rejects()["records"] == 3


def test_what_was_saved_to_disk_is_read_and_of_several_splits_the_training_one(tmp_path):
    from datasets import Dataset, DatasetDict

    dataset = Dataset.from_list(TEXTS)
    dataset.select([2, 0]).save_to_disk(tmp_path / "one")
    assert openings(load(config(tmp_path / "one"))) == ["fünf", "one, two"]
    DatasetDict(train=dataset.select([0, 1]), test=dataset.select([2])).save_to_disk(tmp_path / "splits")
    _, train, test = divide(config(tmp_path / "splits", test_path=str(tmp_path / "splits")))
    assert [d.turns[0].text for d in (*train, *test)] == ["one, two", 'three "four"', "fünf"] and len(test) == 1
    before = data_identity(config(tmp_path / "one"))
    dataset.select([1]).save_to_disk(tmp_path / "one")
    assert data_identity(config(tmp_path / "one")) != before
    (tmp_path / "one" / "data-00000-of-00001.arrow").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"one: a folder of `save_to_disk` that cannot be read \("):
        load(config(tmp_path / "one"))


OTHER = {"scene": "work", "turns": []}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x80\x04\x95\x05", "a Python pickle, which is never opened"),
        (b"BZh91AY", "compressed with bzip2: unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer .* `git lfs pull`"),
        (b"\n<!doctype html><html>", "a web page or XML"),
        (b"ARROW1\x00\x00", "an Arrow file: save it as Parquet"),
        (b"PAR1" + b"\x00" * 20, "a Parquet file that cannot be read"),
        (gzip.compress(b"[" + b" " * 5000)[:-12], "a gzip file that cannot be read"),
        (b"\x1f\x8b\x08" + b"\xff" * 30, "a gzip file that cannot be read"),
        (zipped(a__json="[]", b__json="[]"), "must hold one data file, and this one holds a.json, b.json: unpack it"),
        (zipped(weights__pkl="x"), "must hold one data file, and this one holds none"),
        (zipped(a__json="[]")[:-30], "a zip archive that cannot be read"),
        (zipped(a__zip=zipped(b__zip=zipped(c__json="[]"))), "an archive without a data file: unpack it"),
        (zipped(a__json=b" " * 5001), "holds more than 0 MiB unpacked"),
        (gzip.compress(b" " * 5001), "holds more than 0 MiB unpacked"),
        (table([{"id": "1", "text": "x"}]).encode() + b"2,y,z\n", "raw.data:3: 3 cells in a table of 2 columns"),
        (b'text\n"unclosed', "raw.data:2: not valid CSV"),
    ],
    ids=range(16),  # packed bytes hold the time, and differ from one test process to the next
)
def test_what_is_no_data_or_too_large_is_named_in_one_line(tmp_path, content, says):
    file = tmp_path / "raw.data"
    file.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_records(file, limit=5000)
    assert "raw.data" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "data", "says"),
    [
        (
            "turns.csv",
            table([{"conversation": "1", "speaker": "usr", "utterance": "Hi"}]),
            "esconv",
            "the columns conversation, speaker, utter",
        ),
        (
            "raw.json",
            json.dumps([{"dialog": []}]),
            "extes",
            'no record has the key content, .* dialogues under "dialog", which data=esconv r',
        ),
        ("raw.json", json.dumps([{"messages": []}]), "extes", 'dialogues under "messages", which data=escpro reads'),
        (
            "raw.json",
            json.dumps([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
            "extes",
            "preference pairs, which data=escpro reads",
        ),
        (
            "raw.json",
            json.dumps([{"prompt": "a", "completion": "b"}]),
            "escpro",
            "no record has the key messages or chosen, .* a completion",
        ),
        ("raw.json", json.dumps([OTHER]), "extes", "no record has the key content, the first have scene, turns"),
    ],
)
def test_a_form_that_is_not_the_readers_is_named_with_the_missing_key(tmp_path, name, content, data, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says) as caught:
        load(config(tmp_path / name, data))
    assert "\n" not in str(caught.value)


def folder_of(folder, **files):
    for name, rows in files.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))
    return folder


def test_a_folder_means_its_training_file_and_offers_the_other_as_test_dialogues(tmp_path, capsys):
    files = {
        "ExTES__json": RECORDS[:2],
        "eval__json": RECORDS[2:],
        "dataset_infos__json": {},
        "README__md": "",
        "__hidden__json": [],
    }
    folder = folder_of(tmp_path / "published", **files)
    corpus = load(config(folder))
    assert openings(corpus) == ["one, two", 'three "four"'] and corpus.source == f"ExTES.json of {folder}"
    assert f"reading ExTES.json of {folder}; data.test_path={folder}/eval.json" in capsys.readouterr().out
    for test_path in (folder / "eval.json", folder):
        _, train, test = divide(config(folder, test_path=str(test_path)))
        assert [d.turns[0].text for d in (*train, *test)] == ["one, two", 'three "four"', "fünf"]
        assert [dialogue.id for dialogue in test] == ["test-extes-0000"]


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (("train.json", "other.json", "test.json"), "train.json"),
        (("data/train-00000-of-00001.json", "data/validation-00000-of-00001.json"), "data/train-00000-of-00001.json"),
        (("latest.json", "my_test.json"), "latest.json"),
        (("test.json",), "test.json"),
        (("train.txt", "notes.txt", "valid.txt"), "train.txt"),
        (("deep/er/data.json",), None),
        (("a.json", "b.json"), None),
        (("test.json", "dev.json"), None),
        (("notes.txt",), None),
    ],
)
def test_which_file_of_a_folder_is_meant(tmp_path, files, chosen):
    folder = folder_of(tmp_path, **{name.replace(".", "__"): RECORDS for name in files})
    if chosen:
        assert data_file(config(folder)) == folder / chosen
    else:
        with pytest.raises(
            UserError, match=f"data.path={folder}: holds (no data file|several data files .*name one: data.path=)"
        ):
            data_file(config(folder))


def test_a_relative_folder_of_two_names_is_a_folder_and_known_by_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "some" / "data", all__json=RECORDS[:1])
    first = data_identity(config("some/data"))
    assert openings(load(config("some/data"))) == ["one, two"]
    folder_of(tmp_path / "some" / "data", all__json=RECORDS[1:2])
    assert openings(load(config("some/data"))) == ['three "four"'] and data_identity(config("some/data")) != first
    folder_of(tmp_path / "other" / "place", renamed__json=RECORDS[:1])
    assert data_identity(config("other/place")) == first
    with pytest.raises(UserError, match="^data.path=some/none.json: no such file; give data.path=FILE"):
        data_file(config("some/none.json"))


def test_cells_of_two_files_have_two_names_wherever_the_files_lie(tmp_path):
    folder_of(tmp_path, a__json=RECORDS[:1], b__json=RECORDS[1:], copy__json=RECORDS[:1])
    given = [f"data.path={tmp_path}/{name}.json" for name in ("a", "b", "copy")]
    a, b, copy = (cell_name(composed("data=extes", path)) for path in given)
    assert a == copy != b
    tested = [cell_name(composed("data=extes", given[0], f"data.test_path={tmp_path}/{name}.json")) for name in ("b", "copy")]
    assert len({a, *tested}) == 3


def test_what_opens_as_a_test_dialogue_is_not_trained_on(tmp_path, capsys):
    again = {"scene": "work", "content": [*turns("one, two")[:3], {"AI": "Other.", "AI Strategy": "Affirmation"}]}
    folder_of(tmp_path, train__json=RECORDS, test__json=[again, record("six")])
    _, train, test = divide(config(tmp_path / "train.json", test_path=str(tmp_path / "test.json")))
    assert [d.turns[0].text for d in train] == ['three "four"', "fünf"] and len(test) == 2
    assert "1 of 3 dialogues of data.path open as one of data.test_path does, and are not trained on" in capsys.readouterr().err
    with pytest.raises(UserError, match="3 of 3 dialogues .*: none is left to train on"):
        divide(config(tmp_path / "train.json", test_path=str(tmp_path / "train.json")))
    with pytest.raises(UserError, match="^data.test_path=none.json: no such file"):
        divide(config(tmp_path / "train.json", test_path="none.json"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_bytes_a_file_holds_it_is_read_or_refused_in_one_line(tmp_path, data):
    whole = FORMS[data.draw(st.sampled_from(sorted(FORMS)))]
    content = bytearray(whole.encode() if isinstance(whole, str) else whole)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path / "fuzz"
    file.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]) if data.draw(st.booleans()) else bytes(content))
    try:
        load(config(file))
    except UserError as error:
        assert "\n" not in str(error)
