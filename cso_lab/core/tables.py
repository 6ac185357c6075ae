"""A table of our numbers beside the paper's, rendered as Markdown, for the terminal and as CSV; report.html shows the same object.

pandas could write the CSV, but it turns counts with gaps into floats, and its LaTeX has no headings that span columns; so the
standard library and rich do the rendering.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Text of a field that has no value.
NONE = "–"
# Least width, in columns, if the output is no terminal and has no width of its own.
_FILE_WIDTH = 200


@dataclass(frozen=True)
class Value:
    """A number of ours as text, a note on it, and the paper's value with the difference; "" if there is none."""

    ours: str
    note: str = ""
    paper: str = ""
    difference: str = ""

    @classmethod
    def of(cls, ours: float | None, paper: float | None = None, note: str = "", digits: int = 2) -> "Value":
        """Returns `ours` beside `paper` and ours minus the paper's, to `digits` digits; integers are written as such."""

        def written(number: float | None) -> str:
            return NONE if number is None else f"{number:,}" if isinstance(number, int) else f"{number:,.{digits}f}"

        if paper is None:
            return cls(written(ours), note)
        if ours is None:
            difference = ""
        elif isinstance(ours, int) and isinstance(paper, int):
            difference = f"{ours - paper:+,d}"
        else:
            difference = f"{ours - paper:+,.{digits}f}"
        return cls(written(ours), note, written(paper), minus_signs(difference))

    def text(self, beside: str) -> str:
        """Returns the value as plain text; `beside` is how the paper's value is attached, such as " ({})"."""
        paper = ", ".join(part for part in (f"paper {self.paper}" if self.paper else "", self.difference) if part)
        note = f" ({self.note})" if self.note else ""
        return self.ours + note + (beside.format(paper) if paper else "")


@dataclass(frozen=True)
class Table:
    """Rows of fields under a header. A field is a text or a `Value`; of a table that is only written as CSV, any plain value.

    `caption` explains the table, `notices` are warnings that must be read with it, and the first `text_columns` columns hold
    words, not numbers.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence]
    caption: str = ""
    notices: Sequence[str] = ()
    text_columns: int = 1

    def markdown(self, beside: str = " ({})") -> str:
        """Returns a pipe table, without title and caption. `beside`: see `Value.text`."""
        return markdown_table(self.header, ([_text(field, beside) for field in row] for row in self.rows))

    def grid(self, beside: str = "\n{}"):
        """Returns the table for a terminal, a `rich.table.Table` with the title above it. `beside`: see `Value.text`."""
        from rich.markup import escape
        from rich.table import Table as Grid

        grid = Grid(title=escape(self.title), title_justify="left")
        for number, name in enumerate(self.header):
            grid.add_column(name, justify="left" if number < self.text_columns else "right", overflow="fold")
        for row in self.rows:
            grid.add_row(*(escape(_text(field, beside)) for field in row))
        return grid

    def csv(self) -> str:
        """Returns the table as comma-separated values; None is an empty field."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([self.header, *self.rows])
        return text.getvalue()


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a pipe table; bars within a field are escaped, line breaks become spaces."""
    lines = [[" ".join(field.split()).replace("|", "\\|") for field in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def minus_signs(text: str) -> str:
    """Returns `text` with typographic minus signs for hyphens."""
    return text.replace("-", "\u2212")


def sentence(notice: str) -> str:
    """Returns a notice with a capital at its beginning and one full stop at its end."""
    return f"{notice[:1].upper()}{notice[1:].rstrip('.')}."


def terminal(console=None):
    """Returns `console` or, without one, a rich Console on standard output; wide enough for tables where it is no terminal."""
    from rich.console import Console

    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, _FILE_WIDTH)
    return console


def _text(field: str | Value, beside: str) -> str:
    return field if isinstance(field, str) else field.text(beside)
