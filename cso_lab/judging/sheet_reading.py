"""Filled-in annotation sheets, read back: complete and possible, or refused with row and reason."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cso_lab.errors import UserError
from cso_lab.judging.asking import Answer
from cso_lab.judging.material import COMPARISON, Material
from cso_lab.judging.questions import asked, choice, score
from cso_lab.judging.sheets import ITEM, blinded, texts
from cso_lab.roles.parsing import GarbledReply


def read_sheets(files: Sequence[Path], material: Material, settings: Mapping, key: Mapping[str, int]) -> list[Answer]:
    """The answers of all sheets. A CSV file is one person's, named by the file; Label Studio's export names its annotators itself."""
    answers: list[Answer] = []
    handed_out = {row[ITEM]: row for row in blinded(material, settings)[0]}
    for file in files:
        for person, rows in _people(file):
            if person in {answer.judge for answer in answers}:
                raise UserError(f"{file}: {person} has judged already in another sheet: name every person's file differently")
            answers += _answers(person, rows, material, settings, key, handed_out)
    return answers


def _people(file: Path) -> Iterator[tuple[str, list[tuple[str, dict]]]]:
    """(person, [(where, row)]) of everyone in a file."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text: save the sheet as CSV UTF-8") from None
    if file.suffix.lower() == ".json":
        return iter(_label_studio(file, text).items())
    return iter([(file.stem, _csv_rows(file, text))])


def _csv_rows(file: Path, text: str) -> list[tuple[str, dict]]:
    head = text.split("\n", 1)[0]
    # Some spreadsheets save with semicolons or tabs.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    rows = []
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        # Rows are counted as a spreadsheet does, the header being the first.
        for number, cells in enumerate(reader, start=2):
            if any(cell.strip() for cell in cells):
                if len(cells) > len(columns):
                    raise UserError(f"{file}, row {number}: {len(cells)} cells, expected {len(columns)}")
                rows.append((f"{file}, row {number}", dict(zip(columns, cells, strict=False))))
    except csv.Error as error:
        raise UserError(f"{file}: not a CSV file ({error})") from None
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{file}, row 1: column {twice!r} stands there twice")
    return [(f"{file}, row 1", dict.fromkeys(columns, ""))] + rows


def _label_studio(file: Path, text: str) -> dict[str, list[tuple[str, dict]]]:
    """The annotations of Label Studio's JSON export by annotator."""
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error})") from None
    if not isinstance(tasks, list):
        raise UserError(f"{file}: expected Label Studio's JSON export, a list of tasks")
    found: dict[str, list[tuple[str, dict]]] = {}
    for number, task in enumerate(tasks, start=1):
        where = f"{file}, task {number}"
        try:
            for annotation in task["annotations"]:
                if annotation.get("was_cancelled"):
                    continue
                row = dict(task["data"])
                for result in annotation["result"]:
                    row[result["from_name"]] = " ".join(map(str, result["value"]["choices"]))
                by = annotation.get("completed_by")
                person = f"{file.stem} {by.get('email') or by.get('id') if isinstance(by, dict) else by}"
                found.setdefault(person, [(f"{file}, its tasks", dict.fromkeys(task["data"], ""))]).append((where, row))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where}: not a task of Label Studio's JSON export ({type(error).__name__}: {error})") from None
    if not found:
        raise UserError(f"{file}: no task in it has an annotation")
    return found


def _answers(
    person: str,
    rows: Sequence[tuple[str, Mapping]],
    material: Material,
    settings: Mapping,
    key: Mapping[str, int],
    handed_out: Mapping[str, Mapping],
) -> list[Answer]:
    """One person's answers; the first row only says which columns there are."""
    criteria, shown = asked(material.kind, material.criteria), texts(material.kind)
    (head, columns), rows = rows[0], rows[1:]
    # Label Studio has no column for what nobody filled in.
    wanted = (ITEM, *shown, *criteria) if " row " in f"{head} " else (ITEM, *shown)
    missing = next((name for name in wanted if name not in columns), None)
    if missing:
        raise UserError(f"{head}: column {missing!r} is missing; expected {', '.join(wanted)}")
    answers: dict[str, tuple[str, Answer]] = {}
    for where, row in rows:
        item = str(row.get(ITEM, "")).strip()
        if item not in handed_out:
            raise UserError(f"{where}: item {item!r} was not handed out in this sheet")
        if item in answers:
            raise UserError(f"{where}: item {item} stands there twice, first in {answers[item][0].rpartition(', ')[2]}")
        for name in shown:
            if _letters(str(row.get(name, ""))) != _letters(handed_out[item][name]):
                raise UserError(f"{where}: {name} is not the text handed out for item {item}: were cells moved?")
        answers[item] = (where, Answer(person, item, key[item], _values(where, row, criteria, material.kind, settings["scale"])))
    lacking = next((item for item in handed_out if item not in answers), None)
    if lacking:
        place = list(handed_out).index(lacking) + 2
        raise UserError(
            f"{head.rpartition(', ')[0]}: the row of item {lacking} is missing (row {place} of the sheet handed out); "
            f"{len(answers)} of {len(handed_out)} are there by {person}"
        )
    return [answer for _, answer in answers.values()]


def _values(where: str, row: Mapping, criteria: Sequence[str], kind: str, scale: Sequence[int]) -> dict[str, str | int]:
    values = {}
    for criterion in criteria:
        cell = row.get(criterion)
        if cell is None or not str(cell).strip():
            raise UserError(f"{where}: {criterion} is empty")
        try:
            values[criterion] = choice(cell) if kind == COMPARISON else score(cell, scale)
        except GarbledReply as error:
            raise UserError(f"{where}: {criterion}: {error}") from None
    return values


def _letters(text: str) -> str:
    """What of a text survives any spreadsheet, whatever it does to quotes, line ends and encodings."""
    return re.sub(r"[^a-z0-9]+", "", text.lower())
