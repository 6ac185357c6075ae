"""The paper's numbers, found by table, backbone and row."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

from cso_lab.naming import CONF

_FILE = Path(__file__).with_name("published.yaml")
_STUDIES = Path(__file__).with_name("published_studies.yaml")


@cache
def _published() -> dict:
    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))


def backbones() -> tuple[str, ...]:
    """The backbones the paper has numbers for, in the paper's order."""
    return tuple(dict.fromkeys(name for table in _published()["tables"].values() for name in table))


def tables() -> tuple[str, ...]:
    """The tables there are numbers of: "2", "4", ..."""
    return tuple(_published()["tables"])


def published(backbone: str, row: str, table: str | None = None) -> Mapping[str, float] | None:
    """{Q, B, Q_W, R-L} of one row of the paper, percent but for B, or None where it has none for that backbone.

    `row` is "base", "self_refine", ..., "lora.dpo", ..., "random". `table` is looked up first; a cell it does not hold, and any
    cell without it, is taken from the first table that holds it (the tables agree but for the last digit of two values).
    """
    columns, by_table = _published()["columns"], _published()["tables"]
    for name in dict.fromkeys([table, *by_table]):
        node = by_table.get(name, {}).get(backbone)
        for key in row.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, list):
            return dict(zip(columns, node, strict=True))
    return None


def of_table(table: str) -> dict[str, bool]:
    """The backbones of one of the paper's tables, in its order, and whether the paper trained them; API models it did not."""
    return {name: len(rows) > 1 for name, rows in _published()["tables"].get(table, {}).items()}


def label(backbone: str) -> str:
    """How the paper's tables print a backbone."""
    file = CONF / "backbone" / f"{backbone}.yaml"
    return str(yaml.safe_load(file.read_text(encoding="utf-8"))["label"]) if file.is_file() else backbone


@cache
def published_study(table: str) -> Mapping[str, Mapping[str, float | None]]:
    """{row: {column: value}} of Table 1, 3, 5, 6 or 7; empty for any other. See published_studies.yaml for units and names."""
    study = yaml.safe_load(_STUDIES.read_text(encoding="utf-8")).get(table)
    return {row: dict(zip(study["columns"], values, strict=True)) for row, values in study["rows"].items()} if study else {}
