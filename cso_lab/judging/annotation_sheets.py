"""Filled-in annotation sheets, read back: complete and possible, or refused with row and reason."""

import csv
import io
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cso_lab.errors import UserError
from cso_lab.judging.items import COMPARISON, Material
from cso_lab.judging.llm_judges import Answer
from cso_lab.judging.prompts import asked, choice, score
from cso_lab.judging.sheets import ITEM, blinded, original, texts
from cso_lab.roles.parsing import GarbledReply


@dataclass(frozen=True)
class Filled:
    """One person's sheet: where it is, the columns it has, and its rows, each with the place to name in errors."""

    person: str
    file: Path
    columns: Collection[str]
    rows: Sequence[tuple[str, Mapping]]


def read_sheets(files: Sequence[Path], material: Material, settings: Mapping, key: Mapping[str, int]) -> list[Answer]:
    """The answers of all sheets. A CSV file is one person's, named by the file; Label Studio's export names its annotators itself.

    `settings` and `key` are those of the sheet handed out."""
    answers: dict[str, list[Answer]] = {}
    handed_out = {row[ITEM]: row for row in blinded(material, settings)[0]}
    for file in files:
        for filled in _filled(file, material):
            if filled.person in answers:
                raise UserError(f"{file}: {filled.person} has judged already: name every person's file differently")
            answers[filled.person] = _answers(filled, material, settings, key, handed_out)
    return [answer for one in answers.values() for answer in one]


def _filled(file: Path, material: Material) -> list[Filled]:
    """The sheets in a file: one, or in an export one an annotator."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text: save the sheet as CSV UTF-8") from None
    return _label_studio(file, text, material) if file.suffix.lower() == ".json" else [_csv(file, text)]


def _csv(file: Path, text: str) -> Filled:
    head, rows = text.split("\n", 1)[0], []
    # Some spreadsheets save with semicolons or tabs.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        # Rows are counted as a spreadsheet does, the header being the first.
        for number, cells in enumerate(reader, start=2):
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(columns):
                raise UserError(f"{file}, row {number}: {len(cells)} cells, expected {len(columns)}")
            rows.append((f"{file}, row {number}", dict(zip(columns, map(original, cells), strict=False))))
    except csv.Error as error:
        raise UserError(f"{file}: not a CSV file ({error})") from None
    if len(set(columns)) < len(columns):
        raise UserError(f"{file}, row 1: column {max(columns, key=columns.count)!r} stands there twice")
    return Filled(file.stem, file, columns, rows)


def _label_studio(file: Path, text: str, material: Material) -> list[Filled]:
    """The annotations of Label Studio's JSON export, by annotator."""
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error})") from None
    found: dict[str, list[tuple[str, Mapping]]] = {}
    columns = {ITEM, *texts(material.kind)}
    for number, task in enumerate(tasks if isinstance(tasks, list) else [tasks], start=1):
        where = f"{file}, task {number}"
        try:
            columns &= set(task["data"])
            for annotation in task["annotations"]:
                if annotation.get("was_cancelled"):  # skipped by the annotator
                    continue
                chosen = {result["from_name"]: " ".join(result["value"]["choices"]) for result in annotation["result"]}
                by = annotation.get("completed_by")
                person = f"{file.stem}/{(by.get('email') or by.get('id')) if isinstance(by, dict) else by}"
                found.setdefault(person, []).append((where, {**task["data"], **chosen}))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where}: not a task of Label Studio's JSON export ({type(error).__name__}: {error})") from None
    if not found:
        raise UserError(f"{file}: no task in it has an annotation")
    # What nobody chose has no field in an export; it is found missing in its row.
    return [Filled(person, file, columns | set(material.criteria), rows) for person, rows in found.items()]


def _answers(
    filled: Filled, material: Material, settings: Mapping, key: Mapping[str, int], handed_out: Mapping[str, Mapping]
) -> list[Answer]:
    criteria, shown = asked(material.kind, material.criteria), texts(material.kind)
    wanted = (ITEM, *shown, *criteria)
    missing = next((name for name in wanted if name not in filled.columns), None)
    if missing:
        raise UserError(f"{filled.file}, row 1: column {missing!r} is missing; expected {', '.join(wanted)}")
    answers: dict[str, Answer] = {}
    for where, row in filled.rows:
        item = str(row.get(ITEM, "")).strip()
        if item not in handed_out:
            raise UserError(f"{where}: item {item!r} was not handed out in this sheet")
        if item in answers:
            raise UserError(f"{where}: item {item} is judged for the second time by {filled.person}")
        moved = next((name for name in shown if _letters(row.get(name)) != _letters(handed_out[item][name])), None)
        if moved:
            raise UserError(f"{where}: {moved} is not the text handed out for item {item}: were cells moved?")
        answers[item] = Answer(filled.person, item, key[item], _values(where, row, criteria, material.kind, settings["scale"]))
    lacking = [(row, item) for row, item in enumerate(handed_out, start=2) if item not in answers]
    if lacking:
        row, item = lacking[0]
        raise UserError(
            f"{filled.file}: {len(lacking)} of {len(handed_out)} items are missing for {filled.person}, "
            f"first row {row} of the sheet handed out, item {item}"
        )
    return list(answers.values())


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


def _letters(text: object) -> str:
    """What of a text survives any spreadsheet, whatever it does to quotes, line ends and encodings."""
    return re.sub(r"[^a-z0-9]+", "", str(text or "").lower())
