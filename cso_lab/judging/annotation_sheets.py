"""Annotation sheets for people: blinded and shuffled, as CSV and for Label Studio, and read back once they are filled in.

Which side each reply or conversation belongs to is kept apart, in the key that `write_sheet` returns. A sheet that is incomplete or
impossible is refused with its row and the reason.
"""

import csv
import io
import json
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import write_json
from cso_lab.judging.items import COMPARISON, CONVERSATIONS, PAIRWISE, RATING, Answer, Sample
from cso_lab.judging.prompts import TIE, A, B, asked_criteria, choice, score, side_text
from cso_lab.llm.errors import ParseError
from cso_lab.roles.prompts import transcript

SHEET, TASKS, LABELS = "sheet.csv", "labelstudio.json", "labelstudio.xml"
ITEM = "item"
# A spreadsheet reads a cell that begins with one of these as a formula, or strips the character.
_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "'")

_TASKS = {
    COMPARISON: "Read the conversation and say for each criterion which of the two replies is better",
    RATING: "Read the conversation and say for each criterion how good the reply is (high is good)",
    CONVERSATIONS: "Read both conversations of the same seeker and say for each criterion which supporter is better",
}


def text_columns(kind: str) -> tuple[str, ...]:
    """Returns the columns that annotators read and do not fill in."""
    if kind == CONVERSATIONS:
        return ("situation", "conversation_a", "conversation_b")
    return ("situation", "conversation", *(("reply",) if kind == RATING else ("reply_a", "reply_b")))


def allowed_values(kind: str, scale: Sequence[int]) -> list[str]:
    """Returns what annotators may write into a criterion's column."""
    return [A, B, TIE] if kind in PAIRWISE else [str(score) for score in range(scale[0], scale[1] + 1)]


def blinded_rows(sample: Sample, settings: Mapping) -> tuple[list[dict[str, str]], dict[str, int]]:
    """Returns (the rows in random order, {item id: index of the side shown as A}); in half of the pairs the order is swapped."""
    rng = random.Random(f"sheet/{sample.seed}/{sample.fingerprint}")
    items = rng.sample(sample.items, len(sample.items))
    swapped = set(rng.sample([item.id for item in items], len(items) // 2)) if sample.kind in PAIRWISE else ()
    key = {item.id: int(item.id in swapped) for item in items}
    rows, show_strategies = [], settings["show_strategies"]
    for item in items:
        sides = [side_text(item, side, show_strategies) for side in range(len(item.sides))]
        sides = sides[::-1] if key[item.id] else sides
        history = () if item.conversations else (transcript(item.history, show_strategies),)
        texts = (item.situation, *history, *sides)
        rows.append({ITEM: item.id, **dict(zip(text_columns(sample.kind), texts, strict=True))})
    return rows, key


def write_sheet(sample: Sample, settings: Mapping, folder: Path) -> dict[str, int]:
    """Writes the sheet as CSV and for Label Studio into `folder`. Returns its key, which annotators must not see."""
    rows, key = blinded_rows(sample, settings)
    criteria = asked_criteria(sample.kind, sample.criteria)
    folder.mkdir(parents=True, exist_ok=True)
    # Without a byte order mark Excel assumes another encoding.
    with (folder / SHEET).open("w", encoding="utf-8-sig", errors="replace", newline="") as file:
        writer = csv.DictWriter(file, [ITEM, *text_columns(sample.kind), *criteria], restval="")
        writer.writeheader()
        writer.writerows({name: escape_formula(text) for name, text in row.items()} for row in rows)
    write_json(folder / TASKS, [{"data": row} for row in rows])
    (folder / LABELS).write_text(label_studio_config(sample, settings), encoding="utf-8")
    return key


def escape_formula(text: str) -> str:
    """Returns a cell that no spreadsheet runs as a formula: a text that could be one gets an apostrophe in front."""
    return "'" + text if text.startswith(_RISKY) else text


def unescape_formula(cell: str) -> str:
    """Returns the text that `escape_formula` was given."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_RISKY) else cell


def label_studio_config(sample: Sample, settings: Mapping) -> str:
    """Returns Label Studio's labeling configuration (XML): the texts, and one choice per criterion."""
    view = ET.Element("View")
    for name in text_columns(sample.kind):
        ET.SubElement(view, "Header", value=name.replace("_", " "))
        ET.SubElement(view, "Text", name=name, value=f"${name}")
    for criterion in asked_criteria(sample.kind, sample.criteria):
        ET.SubElement(view, "Header", value=f"{criterion}: {settings['rubric'][criterion]}")
        attributes = {"name": criterion, "toName": text_columns(sample.kind)[1], "choice": "single-radio", "required": "true"}
        block = ET.SubElement(view, "Choices", attributes)
        for value in allowed_values(sample.kind, settings["scale"]):
            ET.SubElement(block, "Choice", value=value)
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"


def instructions(sample: Sample, settings: Mapping) -> str:
    """Returns the instructions for the annotators as Markdown."""
    allowed = ", ".join(allowed_values(sample.kind, settings["scale"]))
    criteria = asked_criteria(sample.kind, sample.criteria)
    rubric = "\n".join(f"- **{criterion}**: {settings['rubric'][criterion]}" for criterion in criteria)
    return (
        f"{_TASKS[sample.kind]}. Write one of {allowed} into every empty field; leave the other columns "
        f"and the number of rows as they are. Neither order nor length is a merit. Judge alone.\n\n{rubric}\n"
    )


@dataclass(frozen=True)
class FilledSheet:
    """One person's filled-in sheet: its file, its columns, and its rows, each with how error messages name it."""

    person: str
    file: Path
    columns: Collection[str]
    rows: Sequence[tuple[str, Mapping]]


def read_sheets(files: Sequence[Path], sample: Sample, settings: Mapping, key: Mapping[str, int]) -> list[Answer]:
    """Returns the answers of all sheets; `settings` and `key` are those of the sheet handed out.

    A CSV file holds one person's answers and is named after that person; Label Studio's JSON export names its annotators itself.
    Raises UserError with file, row and reason where a sheet is damaged, incomplete, or holds impossible values.
    """
    answers: dict[str, list[Answer]] = {}
    handed_out = {row[ITEM]: row for row in blinded_rows(sample, settings)[0]}
    for file in files:
        for filled in _read_file(file, sample):
            if filled.person in answers:
                raise UserError(f"{file}: {filled.person} has judged already: name every person's file differently")
            answers[filled.person] = _check_sheet(filled, sample, settings, key, handed_out)
    return [answer for one in answers.values() for answer in one]


def _read_file(file: Path, sample: Sample) -> list[FilledSheet]:
    """Returns the sheets in a file: one, or of an export one per annotator."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text: save the sheet as CSV UTF-8") from None
    return _read_label_studio(file, text, sample) if file.suffix.lower() == ".json" else [_read_csv(file, text)]


def _read_csv(file: Path, text: str) -> FilledSheet:
    head, rows = text.split("\n", 1)[0], []
    # Some spreadsheets separate by semicolons or tabs.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        # Rows are numbered as in a spreadsheet, where the header is row 1.
        for number, cells in enumerate(reader, start=2):
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(columns):
                raise UserError(f"{file}, row {number}: {len(cells)} cells, expected {len(columns)}")
            rows.append((f"{file}, row {number}", dict(zip(columns, map(unescape_formula, cells), strict=False))))
    except csv.Error as error:
        raise UserError(f"{file}: not a CSV file ({error})") from None
    if len(set(columns)) < len(columns):
        raise UserError(f"{file}, row 1: column {max(columns, key=columns.count)!r} stands there twice")
    return FilledSheet(file.stem, file, columns, rows)


def _read_label_studio(file: Path, text: str, sample: Sample) -> list[FilledSheet]:
    """Returns the annotations of Label Studio's JSON export, one sheet per annotator."""
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error})") from None
    rows_by_person: dict[str, list[tuple[str, Mapping]]] = {}
    columns = {ITEM, *text_columns(sample.kind)}
    for number, task in enumerate(tasks if isinstance(tasks, list) else [tasks], start=1):
        location = f"{file}, task {number}"
        try:
            columns &= set(task["data"])
            for annotation in task["annotations"]:
                if annotation.get("was_cancelled"):  # skipped by the annotator
                    continue
                chosen = {result["from_name"]: " ".join(result["value"]["choices"]) for result in annotation["result"]}
                by = annotation.get("completed_by")
                person = f"{file.stem}/{(by.get('email') or by.get('id')) if isinstance(by, dict) else by}"
                rows_by_person.setdefault(person, []).append((location, {**task["data"], **chosen}))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{location}: not a task of Label Studio's JSON export ({type(error).__name__}: {error})") from None
    if not rows_by_person:
        raise UserError(f"{file}: no task in it has an annotation")
    # A criterion without a choice has no field in an export; `_parse_row` reports it.
    return [FilledSheet(person, file, columns | set(sample.criteria), rows) for person, rows in rows_by_person.items()]


def _check_sheet(
    filled: FilledSheet, sample: Sample, settings: Mapping, key: Mapping[str, int], handed_out: Mapping[str, Mapping]
) -> list[Answer]:
    criteria, texts = asked_criteria(sample.kind, sample.criteria), text_columns(sample.kind)
    expected = (ITEM, *texts, *criteria)
    missing = next((name for name in expected if name not in filled.columns), None)
    if missing:
        raise UserError(f"{filled.file}, row 1: column {missing!r} is missing; expected {', '.join(expected)}")
    answers: dict[str, Answer] = {}
    for location, row in filled.rows:
        item = str(row.get(ITEM, "")).strip()
        if item not in handed_out:
            raise UserError(f"{location}: item {item!r} was not handed out in this sheet")
        if item in answers:
            raise UserError(f"{location}: item {item} is judged for the second time by {filled.person}")
        moved = next((name for name in texts if _letters(row.get(name)) != _letters(handed_out[item][name])), None)
        if moved:
            raise UserError(f"{location}: {moved} is not the text handed out for item {item}: were cells moved?")
        answers[item] = Answer(
            filled.person, item, key[item], _parse_row(location, row, criteria, sample.kind, settings["scale"])
        )
    unanswered = [(row, item) for row, item in enumerate(handed_out, start=2) if item not in answers]
    if unanswered:
        row, item = unanswered[0]
        raise UserError(
            f"{filled.file}: {len(unanswered)} of {len(handed_out)} items are missing for {filled.person}, "
            f"first row {row} of the sheet handed out, item {item}"
        )
    return list(answers.values())


def _parse_row(location: str, row: Mapping, criteria: Sequence[str], kind: str, scale: Sequence[int]) -> dict[str, str | int]:
    values = {}
    for criterion in criteria:
        cell = row.get(criterion)
        if cell is None or not str(cell).strip():
            raise UserError(f"{location}: {criterion} is empty")
        try:
            values[criterion] = choice(cell) if kind in PAIRWISE else score(cell, scale)
        except ParseError as error:
            raise UserError(f"{location}: {criterion}: {error}") from None
    return values


def _letters(text: object) -> str:
    """Returns the letters and digits of a text, which no spreadsheet changes, unlike quotes, line ends and encodings."""
    return re.sub(r"[^a-z0-9]+", "", str(text or "").lower())
