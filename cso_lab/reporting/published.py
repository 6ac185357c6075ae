"""The paper's numbers, found by table, backbone and row."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

_FILE = Path(__file__).with_name("published.yaml")


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
