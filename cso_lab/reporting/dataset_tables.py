"""Tables 5 and 7, the near-duplicates of a dataset and what tells its pairs apart: for report.html, inspection.md and the terminal."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cso_lab.core.published import published_study
from cso_lab.core.tables import Table, Value, sentence, terminal
from cso_lab.reporting.figures import write_strategy_figures

MARKDOWN_FILE = "inspection.md"
_PAPERS_SCORER = "Perspective API"


def table5(statistics: Mapping, name: str) -> Iterator[Table]:
    """Yields Table 5 from a dataset's statistics.json, nothing if it has none; `name` is the dataset's."""
    table = statistics.get("table5")
    if not isinstance(table, Mapping):
        return
    parts, published = {"seed": table.get("seed"), **table.get("per_path", {})}, published_study("5")
    rows = [
        [_words(key), *(Value.of((parts.get(column) or {}).get(key), value) for column, value in row.items())]
        for key, row in published.items()
    ]
    caption = "Counted as the paper does: a turn of several valid paths counts for each. Dialogues in utterances, utterances in words."
    yield Table(f"Table 5: statistics of dataset {name}", ["", *next(iter(published.values()))], rows, caption)


def toxicity_table(inspection: Mapping) -> Iterator[Table]:
    """Yields Table 7 from an inspection.json; the paper's values stand beside ours only where the scorer is the paper's."""
    toxicity = inspection.get("toxicity")
    if not toxicity:
        return
    published = published_study("7")
    attributes = list(next(iter(published.values())))
    same = toxicity["scorer"] == _PAPERS_SCORER
    rows = [
        [_words(part), str(scores["n"])]
        + [
            Value.of(scores["means"].get(name), published.get(part, {}).get(name) if same else None, digits=4)
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
    yield Table("Table 7: toxicity", ["", "n", *attributes], rows, caption, notices)


_WHERE = {
    "within_train": ("within train", "train", ""),
    "within_test": ("within test", "test", ""),
    "train_test": ("train against test", "train", "test"),
    "escpro_test": ("ESC-Pro against test", "ESC-Pro", "test"),
}


def duplicates_table(inspection: Mapping) -> Iterator[Table]:
    """Yields the numbers of near-duplicate pairs, within each side of the split and across it, and of the texts they concern."""
    duplicates = inspection.get("duplicates") or {}
    rows = []
    for kind in ("dialogues", "utterances"):
        for part_name, part in (duplicates.get(kind) or {}).items():
            place, *sides = _WHERE.get(part_name, (_words(part_name), "", ""))
            concerned = [_concerned(part.get(side), of) for side, of in zip(("left", "right"), sides, strict=True)]
            rows.append([f"{kind}, {place}", f"{part['pairs']:,}", *concerned])
    if not rows:
        return
    caption = "By the Jaccard similarity of runs of words."
    if "words" in duplicates:
        caption = (
            f"Pairs whose runs of {duplicates['words']} words have a Jaccard similarity of at least {duplicates['similarity']}; utterances "
            f"of {duplicates['shortest']} words or more. Across the split a pair is leakage from test to train."
        )
    if pairs := inspection.get("pairs"):
        caption += (
            f" Preference pairs: {pairs['along_paths']:,} along the paths, {pairs['distinct']:,} distinct, of which "
            f"{pairs['distinct_replies']:,} differ in their replies and not only in what was said before."
        )
    yield Table("Near-duplicates", ["", "pairs", "concerned", "on the other side"], rows, caption)


def _concerned(side: Mapping | None, of: str) -> str:
    return f"{side['concerned']:,} of {side['of']:,} {of}".strip() if side else ""


_SOURCES = {"gold": "of the gold dialogue", "supporter": "of the supporter role"}


def distinguishing_table(inspection: Mapping) -> Iterator[Table]:
    """Yields how well classifiers tell preferred from dispreferred replies by words, strategies and both, by where the replies are from."""
    distinguishing = inspection.get("distinguishing")
    if not distinguishing:
        return
    groups = distinguishing["groups"]
    rows = [[_pair_kind(group), f"{group['pairs']:,}", *map(_accuracy, map(group.get, _FEATURES))] for group in groups]
    caption = (
        "Share of pairs, in percent, whose preferred reply a classifier names: one that sees words and runs of two words, the strategy, or"
        f" both, and nothing of the history. Chance is 50. {distinguishing['folds']}-fold cross-validation over"
        f" {distinguishing['dialogues']:,} dialogues, with 95% bootstrap intervals over dialogues. Where words alone do well, a"
        " training may learn how the two sides are written and not which strategy helps."
    )
    yield Table("What tells preferred from dispreferred replies", ["preferred reply", "pairs", *_FEATURES], rows, caption)


_FEATURES = ("words", "strategies", "both")


def _pair_kind(group: Mapping) -> str:
    preferred, dispreferred = (_SOURCES.get(group[side]) for side in ("preferred", "dispreferred"))
    if preferred is None:
        return "all"
    return f"{preferred}, against one {dispreferred}"


def _accuracy(result: Mapping) -> str:
    low, high = result["interval"]
    return f"{result['accuracy']:.1f} ({low:.1f} to {high:.1f})"


def dataset_tables(statistics: Mapping, inspection: Mapping, name: str) -> list[Table]:
    """Returns Table 5, Table 7, the near-duplicates and what tells the two sides of pairs apart, those that there are numbers for."""
    return [*table5(statistics, name), *inspection_tables(inspection)]


def inspection_tables(inspection: Mapping) -> list[Table]:
    """Returns the tables of an inspection.json."""
    return [*toxicity_table(inspection), *duplicates_table(inspection), *distinguishing_table(inspection)]


def write_inspection(out: Path, statistics: Mapping, inspection: Mapping, name: str) -> Path:
    """Writes inspection.md and Figures 3 and 9 into `out`. Returns the path of inspection.md. `name` is the dataset's."""
    notices = inspection.get("notices") or ()
    figures = write_strategy_figures(inspection.get("progress") or {}, notices, out)
    sections = [f"# Dataset {name}", *(f"> **{sentence(notice)}**" for notice in notices)]
    for table in dataset_tables(statistics, inspection, name):
        warnings = (f"> **{sentence(notice)}**" for notice in table.notices)
        sections += [f"## {table.title}", *warnings, table.caption, table.markdown()]
    if figures:
        sections.append("## Figures 3 and 9: strategies over the conversation")
    for files in figures.values():
        links = ", ".join(f"[{file.name}]({file.name})" for file in files)
        sections += [f"![{files[0].stem}]({files[0].name})", links]
    path = out / MARKDOWN_FILE
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return path


def print_inspection(path: Path, statistics: Mapping, inspection: Mapping, name: str, console=None) -> None:
    """Prints the tables, and `path`, where they are with the figures. `console` is a rich Console other than standard output."""
    from rich.markup import escape

    console = terminal(console)

    def warn(notices: Iterable[str]) -> None:
        for notice in notices:
            console.print(f"[bold]{escape(sentence(notice))}[/bold]", highlight=False, soft_wrap=True)

    warn(inspection.get("notices") or ())
    for table in dataset_tables(statistics, inspection, name):
        console.print(table.grid())
        warn(table.notices)
        console.print(escape(table.caption), highlight=False, soft_wrap=True)
    console.print(f"inspection, with Figures 3 and 9: {escape(str(path))}", highlight=False, soft_wrap=True)


def _words(key: str) -> str:
    return key.replace("_", " ")
