"""Sheets for people: blinded, harmless, read back whole, and refused with row and reason when damaged."""

import csv
import io
import json
import xml.etree.ElementTree as ET

import pytest
from judging.examples import sample_of, settings
from reporting.trees import HOSTILE

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json
from cso_lab.judging.annotation_sheets import escape_formula, unescape_formula
from cso_lab.judging.items import RATING, Item, Sample
from cso_lab.judging.study import Study

CRITERIA = ("empathy", "strategy")
NASTY = (
    '=HYPERLINK("http://x";"y")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "'=1",
    "''",
    "'quoted'",
    "plain",
    HOSTILE,
    'a;b,c\n"d"',
    "",
)


@pytest.fixture
def study(tmp_path):
    made = Study.begin(tmp_path / "study", sample_of(5))
    made.write_sheet(settings())
    return made


def rows_of(study) -> list[dict]:
    text = (study.folder / "sheet" / "sheet.csv").read_text(encoding="utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def write_csv(path, rows, columns=None, delimiter=",", encoding="utf-8-sig"):
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), delimiter=delimiter, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def by_reading(row) -> dict:
    """What a person writes who finds the good reply better."""
    return row | dict.fromkeys(CRITERIA, "A" if "good" in row["reply_a"] else "B")


def pad_to_multiple(study, judge=by_reading) -> list[dict]:
    return [judge(row) for row in rows_of(study)]


def people(study) -> dict:
    return read_json(study.folder / "judging.json")["panels"]["people"]


def test_a_sheet_is_blinded_and_turns_half_of_the_pairs_round(study):
    rows = rows_of(study)
    files = list((study.folder / "sheet").iterdir())
    assert sorted(file.name for file in files) == ["instructions.md", "labelstudio.json", "labelstudio.xml", "sheet.csv"]
    assert sum("good" in row["reply_a"] for row in rows) == 3
    assert [row["item"] for row in rows] != [item.id for item in study.sample.items]
    for file in files:
        assert not {"ours", "theirs"} & set(file.read_text(encoding="utf-8").replace('"', " ").split())
    assert list(rows[0]) == ["item", "situation", "conversation", "reply_a", "reply_b", *CRITERIA]


def test_two_people_who_see_the_better_reply_and_one_who_takes_the_first(study, tmp_path):
    sheets = [
        write_csv(tmp_path / "ada.csv", pad_to_multiple(study)),
        write_csv(tmp_path / "bob.csv", pad_to_multiple(study)[::-1], delimiter=";"),
        write_csv(tmp_path / "eve.csv", pad_to_multiple(study, lambda row: row | dict.fromkeys(CRITERIA, " a "))),
    ]
    study.read_sheets(sheets)
    found = people(study)
    assert found["judges"] == ["ada", "bob", "eve"] and found["n"] == 5 and found["contradictions"] is None
    # eve says win where the good reply stands first: in 3 of 5
    assert found["rows"]["empathy"]["win"] == pytest.approx(100 * 13 / 15)
    assert found["order"] == {"all": pytest.approx(100 * 11 / 15), "ada": 60, "bob": 60, "eve": 100}
    text = (study.folder / "judging.md").read_text(encoding="utf-8")
    assert "judged by people" in text and "ada, bob, eve" in text


def test_people_stand_beside_models(study, tmp_path):
    study.judge(settings())
    study.read_sheets([write_csv(tmp_path / "ada.csv", pad_to_multiple(study))])
    assert list(read_json(study.folder / "judging.json")["panels"]) == ["models", "people"]
    study.judge(settings("judges=[simulated/judge_warm]"))
    assert people(study)["judges"] == ["ada"]


def drop(rows, columns):
    return rows[:-1], columns


def twice(rows, columns):
    return [*rows, rows[1]], columns


def unknown(rows, columns):
    return [*rows[:2], rows[2] | {"item": "nobody"}, *rows[3:]], columns


def impossible(rows, columns):
    return [rows[0] | {"strategy": "C"}, *rows[1:]], columns


def empty(rows, columns):
    return [rows[0], rows[1] | {"empathy": " "}, *rows[2:]], columns


def moved(rows, columns):
    return [rows[0] | {"reply_a": rows[0]["reply_b"], "reply_b": rows[0]["reply_a"]}, *rows[1:]], columns


def without_column(rows, columns):
    return rows, [name for name in columns if name != "empathy"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop, ["1 of 5 items are missing for ada", "row 6"]),
        (twice, ["row 7", "second time"]),
        (unknown, ["row 4", "'nobody' was not handed out"]),
        (impossible, ["row 2", "strategy: 'C' is not A, B or tie"]),
        (empty, ["row 3", "empathy is empty"]),
        (moved, ["row 2", "reply_a is not the text handed out"]),
        (without_column, ["row 1", "column 'empathy' is missing"]),
    ],
)
def test_a_damaged_sheet_is_refused_with_row_and_reason(study, tmp_path, damage, said):
    rows = pad_to_multiple(study)
    file = write_csv(tmp_path / "ada.csv", *damage(rows, list(rows[0])))
    with pytest.raises(UserError) as error:
        study.read_sheets([file])
    assert all(part in str(error.value) for part in said), error.value
    assert "\n" not in str(error.value)
    assert not (study.folder / "judging.json").exists()


def test_two_sheets_of_one_name_and_a_file_that_is_no_text_are_refused(study, tmp_path):
    (tmp_path / "b").mkdir()
    ada, other = (
        write_csv(tmp_path / "ada.csv", pad_to_multiple(study)),
        write_csv(tmp_path / "b" / "ada.csv", pad_to_multiple(study)),
    )
    with pytest.raises(UserError, match="ada has judged already"):
        study.read_sheets([ada, other])
    (tmp_path / "x.csv").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        study.read_sheets([tmp_path / "x.csv"])


@pytest.mark.parametrize("text", NASTY)
def test_a_cell_is_harmless_and_comes_back(text):
    assert not escape_formula(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unescape_formula(escape_formula(text)) == text


def test_hostile_texts_survive_the_sheet_and_spreadsheets(tmp_path):
    plain = sample_of(len(NASTY))
    items = tuple(
        Item(item.id, text, item.history, tuple(type(r)(r.speaker, text, None) for r in item.replies))
        for item, text in zip(plain.items, NASTY, strict=True)
    )
    study = Study.begin(tmp_path / "study", Sample(**(vars(plain) | {"items": items})))
    study.write_sheet(settings())
    rows = rows_of(study)
    assert sorted(unescape_formula(row["reply_a"]) for row in rows) == sorted(NASTY)
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    both = [row | dict.fromkeys(CRITERIA, "tie") for row in rows]
    # One spreadsheet drops the apostrophe, another writes other line ends.
    stripped = [{name: cell.removeprefix("'").replace("\n", "\r\n") for name, cell in row.items()} for row in both]
    study.read_sheets([write_csv(tmp_path / "a.csv", both), write_csv(tmp_path / "b.csv", stripped, delimiter="\t")])
    assert people(study)["rows"]["empathy"]["tie"] == 100
    assert json.loads((study.folder / "sheet" / "labelstudio.json").read_text(encoding="utf-8"))


def exported(study, people=("ada@x",), cancelled=False) -> list[dict]:
    """What Label Studio's JSON export holds once these people have annotated the tasks."""
    tasks = json.loads((study.folder / "sheet" / "labelstudio.json").read_text(encoding="utf-8"))
    names = [block.get("name") for block in ET.parse(study.folder / "sheet" / "labelstudio.xml").iter("Choices")]
    for number, task in enumerate(tasks, start=1):
        better = "A" if "good" in task["data"]["reply_a"] else "B"
        results = [
            {"from_name": name, "to_name": "conversation", "type": "choices", "value": {"choices": [better]}} for name in names
        ]
        task["id"] = number
        task["annotations"] = [
            {"id": number, "completed_by": {"email": who} if "@" in who else int(who), "result": results} for who in people
        ]
        if cancelled:
            task["annotations"].append({"id": 99, "completed_by": 7, "was_cancelled": True, "result": []})
    return tasks


def test_label_studios_export_is_read_and_its_annotators_told_apart(study, tmp_path):
    file = tmp_path / "export.json"
    file.write_text(json.dumps(exported(study, ("ada@x", "3"), cancelled=True)), encoding="utf-8")
    study.read_sheets([file])
    assert people(study)["judges"] == ["export/ada@x", "export/3"]
    assert people(study)["rows"]["strategy"]["win"] == 100


def test_an_export_with_a_field_nobody_chose_names_the_task(study, tmp_path):
    tasks = exported(study)
    tasks[2]["annotations"][0]["result"].pop()
    file = tmp_path / "export.json"
    file.write_text(json.dumps(tasks), encoding="utf-8")
    with pytest.raises(UserError, match="task 3: strategy is empty"):
        study.read_sheets([file])
    file.write_text(json.dumps([{"data": {}}]), encoding="utf-8")
    with pytest.raises(UserError, match="task 1: not a task"):
        study.read_sheets([file])


def test_the_labeling_configuration_shows_every_text_and_asks_every_criterion(study):
    view = ET.parse(study.folder / "sheet" / "labelstudio.xml").getroot()
    shown = {text.get("value").lstrip("$") for text in view.iter("Text")}
    tasks = json.loads((study.folder / "sheet" / "labelstudio.json").read_text(encoding="utf-8"))
    assert shown | {"item"} == set(tasks[0]["data"])
    blocks = {block.get("name"): [choice.get("value") for choice in block] for block in view.iter("Choices")}
    assert blocks == dict.fromkeys(CRITERIA, ["A", "B", "tie"])
    assert {block.get("toName") for block in view.iter("Choices")} <= {text.get("name") for text in view.iter("Text")}


def test_single_replies_are_scored_by_people_too(tmp_path):
    study = Study.begin(
        tmp_path / "study", sample_of(6, ("acceptance", "effectiveness", "sensitivity", "satisfaction"), kind=RATING)
    )
    study.write_sheet(settings())
    rows = rows_of(study)
    assert "satisfaction" not in rows[0] and "group" not in rows[0] and "reply" in rows[0]
    given = [row | {"acceptance": "3", "effectiveness": "4", "sensitivity": "5.0"} for row in rows]
    study.read_sheets([write_csv(tmp_path / "ada.csv", given)])
    assert people(study)["rows"]["satisfaction"]["means"] == {"seed": 4, "preferred": 4, "dispreferred": 4, "both": 4}
    with pytest.raises(UserError, match="row 2: acceptance: '6' is not an integer from 1 to 5"):
        study.read_sheets([write_csv(tmp_path / "bob.csv", [row | {"acceptance": "6"} for row in given])])
