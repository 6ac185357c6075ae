"""Renders a card: YAML metadata as the model hub reads it, and the text of a template in cards/."""

from pathlib import Path
from typing import TYPE_CHECKING

from cso_lab.export.folder import CARD

if TYPE_CHECKING:
    from huggingface_hub import CardData


def write_card(folder: Path, template: str, data: "CardData", **values: object) -> None:
    """Writes `folder`/README.md from cards/TEMPLATE.md.j2."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Text of Markdown, in which nothing is escaped; see `markdown_table` for fields of tables.
    environment = Environment(
        loader=PackageLoader("cso_lab.export", "cards"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(f"{template}.md.j2").render(metadata=data.to_yaml(), **values)
    # Characters that UTF-8 lacks become references.
    (folder / CARD).write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
