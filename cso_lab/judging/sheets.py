"""Annotation sheets for people: blinded, shuffled, as CSV and for Label Studio. What the sides mean stands in a key file of its own."""

import csv
import random
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

from cso_lab.files import write_json
from cso_lab.judging.items import COMPARISON, Material
from cso_lab.judging.prompts import TIE, A, B, asked, shown_reply
from cso_lab.roles.prompts import transcript

SHEET, TASKS, LABELS = "sheet.csv", "labelstudio.json", "labelstudio.xml"
ITEM = "item"
# A spreadsheet would take a cell that opens with one of these for a formula, or strip it.
_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def texts(kind: str) -> tuple[str, ...]:
    """The columns that are read and not filled in."""
    return ("situation", "conversation", *(("reply_a", "reply_b") if kind == COMPARISON else ("reply",)))


def choices(kind: str, scale: Sequence[int]) -> list[str]:
    """What may be written into a criterion's column."""
    return [A, B, TIE] if kind == COMPARISON else [str(score) for score in range(scale[0], scale[1] + 1)]


def blinded(material: Material, settings: Mapping) -> tuple[list[dict[str, str]], dict[str, int]]:
    """(the rows to judge in a drawn order, {item: which of its replies is shown as A}); half of the items are turned round."""
    chance = random.Random(f"sheet/{material.seed}/{material.digest}")
    items = chance.sample(material.items, len(material.items))
    turned = set(chance.sample([item.id for item in items], len(items) // 2)) if material.kind == COMPARISON else ()
    key = {item.id: int(item.id in turned) for item in items}
    rows = []
    for item in items:
        replies = [shown_reply(reply, settings["show_strategies"]) for reply in item.replies]
        replies = replies[::-1] if key[item.id] else replies
        said = (item.situation, transcript(item.history, settings["show_strategies"]), *replies)
        rows.append({ITEM: item.id, **dict(zip(texts(material.kind), said, strict=True))})
    return rows, key


def write_sheets(material: Material, settings: Mapping, folder: Path) -> dict[str, int]:
    """Write the sheet in its three files into `folder`; returns its key, which does not belong there."""
    rows, key = blinded(material, settings)
    criteria = asked(material.kind, material.criteria)
    folder.mkdir(parents=True, exist_ok=True)
    # With a byte order mark, without which Excel takes the text for another encoding.
    with (folder / SHEET).open("w", encoding="utf-8-sig", errors="replace", newline="") as file:
        writer = csv.DictWriter(file, [ITEM, *texts(material.kind), *criteria], restval="")
        writer.writeheader()
        writer.writerows({name: harmless(text) for name, text in row.items()} for row in rows)
    write_json(folder / TASKS, [{"data": row} for row in rows])
    (folder / LABELS).write_text(labels_xml(material, settings), encoding="utf-8")
    return key


def harmless(text: str) -> str:
    """A cell that no spreadsheet runs as a formula: with an apostrophe before what could be one. `original` undoes it."""
    return "'" + text if text.startswith(_RISKY) else text


def original(cell: str) -> str:
    """Inverse of `harmless`."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_RISKY) else cell


def labels_xml(material: Material, settings: Mapping) -> str:
    """Label Studio's labeling configuration: the texts, and one choice a criterion."""
    view = ET.Element("View")
    for name in texts(material.kind):
        ET.SubElement(view, "Header", value=name.replace("_", " "))
        ET.SubElement(view, "Text", name=name, value=f"${name}")
    for criterion in asked(material.kind, material.criteria):
        ET.SubElement(view, "Header", value=f"{criterion}: {settings['rubric'][criterion]}")
        said = {"name": criterion, "toName": "conversation", "choice": "single-radio", "required": "true"}
        block = ET.SubElement(view, "Choices", said)
        for choice in choices(material.kind, settings["scale"]):
            ET.SubElement(block, "Choice", value=choice)
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"


def instructions(material: Material, settings: Mapping) -> str:
    """What to tell the annotators, as Markdown."""
    allowed = ", ".join(choices(material.kind, settings["scale"]))
    criteria = asked(material.kind, material.criteria)
    rubric = "\n".join(f"- **{criterion}**: {settings['rubric'][criterion]}" for criterion in criteria)
    what = "which of the two replies is better" if material.kind == COMPARISON else "how good the reply is (high is good)"
    return (
        f"Read the conversation and say for each criterion {what}. Write one of {allowed} into every empty field; leave the other columns "
        f"and the number of rows as they are. Neither order nor length is a merit. Judge alone.\n\n{rubric}\n"
    )
