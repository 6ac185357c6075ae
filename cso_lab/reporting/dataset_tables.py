"""Tables 5 and 7 and the near-duplicates, for the page, for inspection.md and for the terminal."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from cso_lab.core.published import published_study
from cso_lab.reporting.html.charts import Beside, Table, beside
from cso_lab.reporting.markdown import markdown_table
from cso_lab.reporting.strategy_figures import write_progress_figures

MARKDOWN_FILE = "inspection.md"
_PAPERS_SCORER = "Perspective API"


def table5(statistics: Mapping, name: str) -> Iterator[Table]:
    """Table 5 from a dataset's statistics.json; `name` is the dataset's."""
    table = statistics.get("table5")
    if not isinstance(table, Mapping):
        return
    parts, published = {"seed": table.get("seed"), **table.get("per_path", {})}, published_study("5")
    lines = [
        [_words(key), *(beside((parts.get(column) or {}).get(key), value) for column, value in row.items())]
        for key, row in published.items()
    ]
    caption = "Counted as the paper does: a turn of several valid paths counts for each. Dialogues in utterances, utterances in words."
    yield Table(f"Table 5: statistics of dataset {name}", ["", *next(iter(published.values()))], lines, caption)


def toxicity(found: Mapping) -> Iterator[Table]:
    """Table 7; the paper's values stand beside ours only where the scorer is the paper's."""
    toxicity = found.get("toxicity")
    if not toxicity:
        return
    published = published_study("7")
    attributes = list(next(iter(published.values())))
    same = toxicity["scorer"] == _PAPERS_SCORER
    lines = [
        [_words(part), str(scores["n"])]
        + [
            beside(scores["means"].get(name), published.get(part, {}).get(name) if same else None, digits=4)
            for name in attributes
        ]
        for part, scores in toxicity["parts"].items()
    ]
    caption = f"Means over n utterances, scored by {toxicity['scorer']}, {toxicity['version']}."
    if not same:
        caption += f" The paper's values are the {_PAPERS_SCORER}'s, on a scale of its own, and so do not stand here."
    if refused := toxicity.get("refused"):
        caption += f" {refused} distinct utterances were refused by the scorer and are in no mean."
    notices = [toxicity["notice"]] if toxicity.get("notice") else []
    yield Table("Table 7: toxicity", ["", "n", *attributes], lines, caption, notices)


_WHERE = {
    "within_train": ("within train", "train", ""),
    "within_test": ("within test", "test", ""),
    "train_test": ("train against test", "train", "test"),
    "escpro_test": ("ESC-Pro against test", "ESC-Pro", "test"),
}


def duplicates(found: Mapping) -> Iterator[Table]:
    """How many pairs are near-duplicates, within each side of the split and across it, and how many texts they concern."""
    compared = found.get("duplicates") or {}
    lines = []
    for kind in ("dialogues", "utterances"):
        for where, part in (compared.get(kind) or {}).items():
            said, *sides = _WHERE.get(where, (_words(where), "", ""))
            concerned = [_concerned(part.get(side), of) for side, of in zip(("left", "right"), sides, strict=True)]
            lines.append([f"{kind}, {said}", f"{part['pairs']:,}", *concerned])
    if not lines:
        return
    caption = "By the Jaccard similarity of runs of words."
    if "words" in compared:
        caption = (
            f"Pairs whose runs of {compared['words']} words have a Jaccard similarity of at least {compared['similarity']}; utterances of "
            f"{compared['shortest']} words or more. Across the split a pair is leakage from test to train."
        )
    if pairs := found.get("pairs"):
        caption += (
            f" Preference pairs: {pairs['along_paths']:,} along the paths, {pairs['distinct']:,} distinct, of which "
            f"{pairs['distinct_replies']:,} differ in their replies and not only in what was said before."
        )
    yield Table("Near-duplicates", ["", "pairs", "concerned", "on the other side"], lines, caption)


def _concerned(side: Mapping | None, of: str) -> str:
    return f"{side['concerned']:,} of {side['of']:,} {of}".strip() if side else ""


def tables(statistics: Mapping, found: Mapping, name: str) -> list[Table]:
    return [*table5(statistics, name), *toxicity(found), *duplicates(found)]


def write_inspection(out: Path, statistics: Mapping, found: Mapping, name: str) -> Path:
    """Write inspection.md and Figures 3 and 9 into `out`; returns the path of inspection.md."""
    figures = write_progress_figures(found.get("progress") or {}, found.get("notices") or (), out)
    sections = [f"# Dataset {name}", *(f"> **{_sentence(notice)}**" for notice in found.get("notices") or ())]
    for table in tables(statistics, found, name):
        sections += [f"## {table.title}", *(f"> **{_sentence(notice)}**" for notice in table.notices), table.caption]
        sections.append(markdown_table(table.header, ([_text(field) for field in line] for line in table.lines)))
    if figures:
        sections.append("## Figures 3 and 9: strategies over the conversation")
    for files in figures.values():
        links = ", ".join(f"[{file.name}]({file.name})" for file in files)
        sections += [f"![{files[0].stem}]({files[0].name})", links]
    path = out / MARKDOWN_FILE
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return path


def print_inspection(path: Path, statistics: Mapping, found: Mapping, name: str, console=None) -> None:
    """The tables on the terminal, and `path`, where they lie with the figures. `console`: a rich Console other than standard output."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Grid

    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 200)  # of a log file or pipe nobody knows the width; do not fold for it
    for notice in found.get("notices") or ():
        console.print(f"[bold]{escape(_sentence(notice))}[/bold]", highlight=False, soft_wrap=True)
    for table in tables(statistics, found, name):
        grid = Grid(title=escape(table.title), title_justify="left")
        for number, head in enumerate(table.header):
            grid.add_column(head, justify="right" if number else "left", overflow="fold")
        for line in table.lines:
            grid.add_row(*(escape(_text(field, "\n{}")) for field in line))
        console.print(grid)
        for notice in table.notices:
            console.print(f"[bold]{escape(_sentence(notice))}[/bold]", highlight=False, soft_wrap=True)
        console.print(escape(table.caption), highlight=False, soft_wrap=True)
    console.print(f"inspection, with Figures 3 and 9: {escape(str(path))}", highlight=False, soft_wrap=True)


def _text(field: str | Beside, form: str = " ({})") -> str:
    """Our value, and the paper's with the difference in this `form`."""
    if isinstance(field, str):
        return field
    beside = ", ".join(part for part in (f"paper {field.paper}" if field.paper else "", field.difference) if part)
    return field.ours + (form.format(beside) if beside else "")


def _sentence(notice: str) -> str:
    return f"{notice[:1].upper()}{notice[1:].rstrip('.')}."


def _words(key: str) -> str:
    return key.replace("_", " ")
