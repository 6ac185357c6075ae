"""Whole conversations in a report: what they came to, by persona, and each cell less the untrained model, SFT and the references."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cso_lab.conversation.records import CONVERSATION_METRICS, ENDINGS
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json
from cso_lab.core.tables import NONE, Table, Value, sentence
from cso_lab.evaluation.conversations import CRITERIA, LOWER_IS_BETTER, MEASURES, paired_differences
from cso_lab.evaluation.paired import Difference
from cso_lab.reporting.cells import MissingCell
from cso_lab.reporting.markdown import difference_text

CSV_FILE = "conversations.csv"
REFERENCES = {
    "gold": "reference: gold supporter replayed",
    "strategist": "reference: the strategist's best strategy",
    "random": "reference: random strategy",
}
HEADERS = {
    "success": "success %",
    "turns_to_success": "turns to success",
    "intensity": "intensity at the end",
    "area": "mean intensity",
    **{criterion: criterion for criterion in CRITERIA},
    "entropy": "entropy of strategies",
    "longest_run": "longest run",
    "stage_fit": "stage fit %",
    "distinct_2": "distinct-2 %",
    "repeated_within": "repeated %",
    "harmful": "harmful %",
}
_COMPARED = ("success", "turns_to_success", "intensity", "area", "S", "stage_fit", "repeated_within", "harmful")
# What conversation_metrics.json must hold to be shown.
_PARTS = ("n", "set_aside", "endings", "curve", "by_persona", "by_scene", "strategies", "harm", "seekers", "context")
LEGEND = (
    "Means over seekers with 95% bootstrap intervals over seekers, who are the same in every row. success: leaves with an intensity at or "
    "below the threshold; mean intensity: over all turns, those after the end included; entropy in bits; stage fit: how well the "
    "strategies fit the stage of the conversation; repeated: sentences that the seeker was told before. ↑ more is better, ↓ less is "
    "better."
)
DIFFERENCES = (
    "The row less the one it is set against, on the same seekers, with the 95% interval of a paired bootstrap over them; turns to success "
    "on the seekers whom both relieved."
)
_BOLD = "**Bold**: the interval leaves 0 out; of twenty differences that are none, about one is bold all the same."


@dataclass(frozen=True)
class Conversations:
    """The conversation_metrics.json of one run folder, and the name of its row."""

    folder: Path
    name: str
    metrics: Mapping

    @property
    def cell(self) -> Mapping:
        """The cell, with `reference`."""
        return self.metrics["cell"]


def load_conversations(folders: Iterable[Path]) -> tuple[list[Conversations], dict[Path, str]]:
    """Returns (the conversations of those run folders that have any, the references last; {damaged file: what is wrong with it})."""
    loaded, problems = [], {}
    for folder in dict.fromkeys(map(Path, folders)):
        file = folder / CONVERSATION_METRICS
        if not file.exists():
            continue
        try:
            loaded.append(_read(file))
        except UserError as error:
            problems[file] = str(error)
    order = (None, *REFERENCES)
    return sorted(_told_apart(loaded), key=lambda each: order.index(each.cell["reference"])), problems


def without_conversations(missing: Sequence[MissingCell], held: Sequence[Conversations]) -> list[MissingCell]:
    """Returns the missing cells but for those that were only to hold conversations, and did."""
    conversed = {each.folder for each in held}
    return [cell for cell in missing if cell.failed or cell.folder not in conversed]


def sections(held: Sequence[Conversations]) -> list[str]:
    """Returns the sections of report.md; none without conversations."""
    if not held:
        return []
    said = [f"> **{sentence(notice)}**" for notice in notices(held)]
    parts = ["## Conversations", *said, results_table(held).markdown(), LEGEND]
    if compared := comparisons(held):
        parts += ["### Differences between conversations", difference_table(compared).markdown(), f"{DIFFERENCES} {_BOLD}"]
    parts += ["### Success by persona, in percent", persona_table(held).markdown()]
    return [*parts, "### Harmful replies", _harm(held)]


def notices(held: Sequence[Conversations]) -> list[str]:
    """Returns the warnings that must stand beside the numbers."""
    return list(dict.fromkeys(notice for each in held for notice in each.metrics["context"].get("notices", ())))


def results_table(held: Sequence[Conversations], field: Callable[[Mapping], str | Value] | None = None) -> Table:
    """Returns one row a cell: its measures with their intervals, and how its conversations ended.

    `field` writes a measure; None: as text, its interval in brackets.
    """
    field = field or _measure
    header = ["Cell", *(f"{text} {_arrow(name)}".strip() for name, text in HEADERS.items()), " / ".join(ENDINGS), "n"]
    rows = []
    for each in held:
        endings, measures = each.metrics["endings"], each.metrics["measures"]
        ended = " / ".join(str(endings[ending]) for ending in ENDINGS)
        rows.append([each.name, *(field(measures[name]) for name in HEADERS), ended, str(each.metrics["n"])])
    return Table("Conversations", header, rows)


def short_table(held: Sequence[Conversations]) -> Table:
    """Returns the table for a terminal: the outcomes alone."""
    names = ("success", "turns_to_success", "intensity", "area", "S", "harmful")
    rows = [[each.name, *(_measure(each.metrics["measures"][name]) for name in names), str(each.metrics["n"])] for each in held]
    return Table("Conversations", ["Cell", *(f"{HEADERS[name]} {_arrow(name)}".strip() for name in names), "n"], rows)


@dataclass(frozen=True)
class Comparison:
    """A row less another: {measure: Difference}, over the `n` seekers of both."""

    row: Conversations
    baseline: Conversations
    differences: Mapping[str, Difference]
    n: int


def comparisons(held: Sequence[Conversations]) -> list[Comparison]:
    """Returns each model's row compared with its backbone as it is, with SFT, and with every reference, as far as seekers are the same."""
    compared = []
    for row in held:
        for baseline in held:
            if row is not baseline and row.cell["reference"] is None and _is_baseline(baseline.cell, row.cell):
                differences, n = paired_differences(row.metrics, baseline.metrics)
                if n:
                    compared.append(Comparison(row, baseline, differences, n))
    return compared


def difference_table(compared: Sequence[Comparison], field: Callable[[Difference], str | Value] = difference_text) -> Table:
    """Returns one line a comparison; `field` writes a difference."""
    rows = [
        [
            one.row.name,
            one.baseline.name,
            *(field(one.differences[name]) if name in one.differences else NONE for name in _COMPARED),
            str(one.n),
        ]
        for one in compared
    ]
    return Table("Differences", ["Row", "less", *(HEADERS[name] for name in _COMPARED), "n"], rows)


def persona_table(held: Sequence[Conversations]) -> Table:
    """Returns the success of every cell by persona."""
    personas = sorted({persona for each in held for persona in each.metrics["by_persona"]})
    groups = [each.metrics["by_persona"] for each in held]
    rows = [
        [
            each.name,
            *(_measure(group[name]["measures"]["success"]) if name in group else NONE for name in personas),
        ]
        for each, group in zip(held, groups, strict=True)
    ]
    return Table("Success by persona", ["Cell", *personas], rows)


def csv(held: Sequence[Conversations]) -> str:
    """Returns all measures with their intervals, unrounded, one line a cell."""
    names = list(dict.fromkeys([*MEASURES, *(name for each in held for name in each.metrics["measures"])]))
    header = [
        "cell",
        "folder",
        "n",
        "set_aside",
        *ENDINGS,
        *(f"{name}{end}" for name in names for end in ("", "_low", "_high")),
    ]
    rows = []
    for each in held:
        measures = [each.metrics["measures"].get(name) or {} for name in names]
        values = [value.get(key) for value in measures for key in ("value", "low", "high")]
        counts = [each.metrics[key] for key in ("n", "set_aside")] + [each.metrics["endings"][key] for key in ENDINGS]
        rows.append([each.name, each.folder.name, *counts, *values])
    return Table("", header, rows).csv()


def _harm(held: Sequence[Conversations]) -> str:
    lines = []
    for each in held:
        harm = each.metrics["harm"]
        kinds = ", ".join(f"{kind} {count}" for kind, count in harm["kinds"].items())
        unjudged = f"; {harm['unjudged']} could not be judged" if harm["unjudged"] else ""
        lines.append(f"- {each.name}: {harm['count']}{f' ({kinds})' if kinds else ''}{unjudged}")
        lines += [
            f'  - seeker {turn["seeker"]}, turn {turn["turn"] + 1}, {", ".join(turn["kinds"])}: "{" ".join(turn["text"].split())}"'
            for turn in harm["turns"]
        ]
    return "\n".join(lines)


def _read(file: Path) -> Conversations:
    """Returns the conversations of a conversation_metrics.json. Raises UserError if it is damaged or lacks a part."""
    metrics = read_json(file)
    try:
        lacking = [name for name in _PARTS if name not in metrics] + [
            name for name in MEASURES if name not in metrics["measures"]
        ]
        name = _name(metrics["cell"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: no metrics of conversations ({error!r})") from None
    if lacking:
        raise UserError(f"{file}: metrics of conversations without {', '.join(lacking)}")
    return Conversations(file.parent, name, metrics)


def _name(cell: Mapping) -> str:
    if cell["reference"] is not None:
        return REFERENCES[cell["reference"]]
    after = f" after {cell['start_label']}" if cell.get("start_label") else ""
    decoding = [] if cell["decoding"] == "plain" else [cell["decoding_label"]]
    return ", ".join(filter(None, [cell["label"], cell["mode_label"], f"{cell['algo_label']}{after}", *decoding]))


def _told_apart(held: Sequence[Conversations]) -> list[Conversations]:
    """Returns the conversations; rows of one name get their seed and what was set on the command line, or their folder, beside it."""

    def longer(each: Conversations) -> str:
        seed = [] if each.cell["seed"] is None else [f"seed {each.cell['seed']}"]
        parts = [*seed, *(f"{key}={value}" for key, value in each.cell["varied"].items())]
        return f"{each.name} [{', '.join(parts)}]" if parts else each.name

    for naming in (longer, lambda each: f"{each.name} [{each.folder.name}]"):
        names = [each.name for each in held]
        held = [
            Conversations(each.folder, naming(each) if names.count(each.name) > 1 else each.name, each.metrics) for each in held
        ]
    return list(held)


def _is_baseline(other: Mapping, cell: Mapping) -> bool:
    if other["reference"] is not None:
        return True
    if other["backbone"] != cell["backbone"] or cell["algo"] == "base":
        return False
    sft = other["algo"] == "sft" and other["mode"] == cell["mode"] and cell["algo"] != "sft"
    return sft or (other["algo"] == "base" and other["decoding"] == "plain")


def _measure(measure: Mapping) -> str:
    if measure["value"] is None:
        return NONE
    bounds = "" if measure["low"] is None else f" [{measure['low']:.2f}, {measure['high']:.2f}]"
    return f"{measure['value']:.2f}{bounds}"


def _arrow(name: str) -> str:
    if name in LOWER_IS_BETTER:
        return "↓"
    return "↑" if name in ("success", *CRITERIA, "stage_fit", "distinct_2") else ""
