"""The numbers that the paper printed: Tables 2, 4 and 9 to 12 by table, backbone and row; Tables 1, 3, 5, 6 and 7 by row and column."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

_FILE = Path(__file__).with_name("published.yaml")
_STUDIES = Path(__file__).with_name("published_studies.yaml")


@cache
def _published() -> dict:
    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))


def backbones() -> tuple[str, ...]:
    """Returns the backbones the paper has numbers for, in the paper's order."""
    return tuple(dict.fromkeys(name for table in _published()["tables"].values() for name in table))


def table_names() -> tuple[str, ...]:
    """Returns the numbers of the tables of scores: "2", "4", "9", ..."""
    return tuple(_published()["tables"])


def backbones_of(table: str) -> dict[str, bool]:
    """Returns {backbone of a table, in its order: whether the paper trained it}; API models were not trained."""
    return {name: len(rows) > 1 for name, rows in _published()["tables"].get(table, {}).items()}


def rows_of(table: str) -> dict[str, list[str]]:
    """Returns {backbone: its rows in a table}, each as `published_scores` takes it: "base", "lora.dpo", ..."""
    return {
        backbone: [
            key
            for name, value in rows.items()
            for key in ([f"{name}.{algorithm}" for algorithm in value] if isinstance(value, dict) else [name])
        ]
        for backbone, rows in _published()["tables"].get(table, {}).items()
    }


def published_scores(backbone: str, row: str, table: str | None = None) -> Mapping[str, float] | None:
    """Returns {Q, B, Q_W, R-L} of one row of the paper, percent but for B, or None if it has none for that backbone.

    `row` is "base", "self_refine", ..., "lora.dpo", ..., "random". `table` is looked up first; a row it does not hold, and any
    row without it, is taken from the first table that holds it (the tables agree but for the last digit of two values).
    """
    columns, by_table = _published()["columns"], _published()["tables"]
    for name in dict.fromkeys([table, *by_table]):
        node = by_table.get(name, {}).get(backbone)
        for key in row.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, list):
            return dict(zip(columns, node, strict=True))
    return None


@cache
def published_study(table: str) -> Mapping[str, Mapping[str, float | None]]:
    """Returns {row: {column: value}} of Table 1, 3, 5, 6 or 7; {} of any other. published_studies.yaml tells units and names."""
    study = yaml.safe_load(_STUDIES.read_text(encoding="utf-8")).get(table)
    return {row: dict(zip(study["columns"], values, strict=True)) for row, values in study["rows"].items()} if study else {}
