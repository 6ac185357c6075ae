"""The sections of report.md, and the sentences about a report's cells that the terminal and report.html show as well."""

import math
from collections.abc import Iterable, Sequence

from cso_lab.core.published import backbones_of
from cso_lab.core.tables import NONE, Table, markdown_table, sentence
from cso_lab.evaluation.paired import Difference
from cso_lab.reporting.cells import METRICS, Cell, MissingCell
from cso_lab.reporting.comparison import MARKS, api_models_not_run, proxy_baselines, proxy_heading, verdict
from cso_lab.reporting.results_table import ResultsTable
from cso_lab.reporting.rows import HEADERS, Row, backbone_label, mean_and_deviation, model_name, withholds_paper
from cso_lab.reporting.significance import PairedComparison
from cso_lab.reporting.training_log import training_warnings

_NEVER = "*"
# Names of the values of a cell's context in the report; other values keep their key.
_CHOICES = {
    "data": "data",
    "data_file": "file of the data",
    "test_file": "file of the test dialogues",
    "test_turns": "test turns",
    "roles": "players of the search",
    "mcts": "search",
    "preferences": "preference data",
    "preference_dialogues": "dialogues of preference data",
    "training_rows": "training rows",
    "training_steps": "training steps",
    "start_training_rows": "training rows of the start",
    "start_training_steps": "training steps of the start",
    "max_new_tokens": "tokens a reply may have",
    "measured_on": "measured on",
    "testset": "test set of Q, Q_W and B",
    "served": "asked on a server",
    "served_at": "at",
    "usage": "calls to the server",
    "shortened_prompts": "prompts sent without their oldest turns",
}
_DIFFERENCES = (
    "The row less the one it is set against, on the same test turns, with the 95% interval of a paired bootstrap over turns; over several "
    "seeds, of their means. **Bold**: the interval leaves 0 out, so the difference is real for these turns; of twenty differences that are "
    "none, about one is bold all the same."
)
# Values of the context that other places of the report show.
_ELSEWHERE = ("roles_notice", "constrain", "start_from", "seed", "path")
_DECODED = {
    "none": "a reply is whatever the model writes (generation.constrain=none, as in the paper)",
    "format": "a reply must open with one of the strategies (generation.constrain=format; the paper's cells use none)",
    "likelihood": (
        "a reply opens with the strategy whose whole name the model finds likeliest (generation.constrain=likelihood; the paper's cells use"
        " none)"
    ),
}


def markdown(
    title: str,
    results: ResultsTable,
    missing: Sequence[MissingCell],
    comparisons: Sequence[PairedComparison],
    notes: Sequence[str],
    more: Sequence[str] = (),
) -> str:
    """Returns the text of report.md; `notes` are added to those that follow from the cells, `more` are further sections."""
    rows, table = results.rows, results.table
    cells = [cell for row in rows for cell in row.cells]
    sections = [
        f"# {title}",
        *_warnings(cells, rows, table),
        "## What was run\n\n" + _bullets(f"{name}: {values}" for name, values in what_was_run(cells)),
    ]
    if rows:
        sections += ["## Results\n\n" + results.text().markdown(), legend(rows, table)]
        if text := results.text_metrics():
            sections += [f"## {text.title}\n\n{text.markdown()}", text.caption]
        sections += ["## Intervals\n\n" + _interval_table(rows).markdown(), _interval_legend(cells)]
        if comparisons:
            sections += ["## Differences\n\n" + _difference_table(comparisons).markdown(), _DIFFERENCES]
        sections += _strategy_sections(rows)
    sections += more
    for heading, failed in (("Missing or failed cells", True), ("Not run", False)):
        lines = [[cell.folder.name, cell.reason] for cell in missing if cell.failed == failed]
        if lines:
            sections.append(f"## {heading}\n\n" + markdown_table(["Cell", "Reason"], lines))
    if notes := [*notes, *remarks(cells, rows, table)]:
        sections.append("## Notes\n\n" + _bullets(notes))
    return "\n\n".join(sections) + "\n"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def notices(cells: Sequence[Cell]) -> list[str]:
    """Returns the warnings that must stand beside the cells' scores, such as that role players were simulated."""
    role_players = [str(cell.context["roles_notice"]) for cell in cells if cell.context.get("roles_notice")]
    dialogues = [f"measured on {cell.context['measured_on']}" for cell in cells if cell.context.get("measured_on")]
    return list(dict.fromkeys(role_players + dialogues))


def _warnings(cells: Sequence[Cell], rows: Sequence[Row], table: str | None) -> list[str]:
    """Returns what must be read before any number, as quotations."""
    sentences = [sentence(notice) for notice in notices(cells)]
    if proxies := proxy_baselines(rows, table):
        models = ", ".join(dict.fromkeys(row.model for row in rows if row.cells[0].backbone not in backbones_of(table)))
        names = ", ".join(proxy_heading(name) for name in proxies)
        sentences.append(
            f"Measured on {models}, which the paper has no numbers of. What stands under {names} is of that model, not of ours."
        )
    return [f"> **{text}**" for text in sentences]


def remarks(cells: Sequence[Cell], rows: Sequence[Row], table: str | None) -> list[str]:
    """Returns which rows have no published scores beside them and why, which API models of the paper were not run, and what trainings
    warn of."""
    models = dict.fromkeys((cell.backbone, str(cell.context["path"])) for cell in cells if withholds_paper(cell))
    sentences = [
        f"backbone={backbone} was loaded from {path}, which need not be the {backbone_label(backbone)} of the paper: "
        "no published value stands beside it."
        for backbone, path in models
    ]
    if not_run := api_models_not_run(rows, table):
        names = ", ".join(f"{backbone_label(name)} (backbone={name})" for name in not_run)
        sentences.append(f"Rows of the paper's Table {table} that were not run: {names}.")
    return sentences + training_warnings((_seeded(row, cell), cell.folder) for row in rows for cell in row.cells)


def _seeded(row: Row, cell: Cell) -> str:
    return f"{row.name}, seed {cell.seed}" if len(row.cells) > 1 else row.name


def what_was_run(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Returns (name, values) of everything the cells were run with: model, data, search, training, ..."""
    choices: dict[str, list] = {"model": [model_name(cell) for cell in cells]}
    for key in dict.fromkeys([*_CHOICES, *(key for cell in cells for key in cell.context)]):
        if key not in _ELSEWHERE:
            choices[_CHOICES.get(key, key)] = [cell.context_value(key) for cell in cells]
    for key in dict.fromkeys(key for cell in cells for key in cell.varied):
        choices[key] = [cell.varied.get(key) for cell in cells]
    choices["decoding"] = [cell.decoding_label or cell.decoding for cell in cells]
    choices["form of replies"] = [
        _DECODED.get(cell.context["constrain"], f"generation.constrain={cell.context['constrain']}")
        for cell in cells
        if cell.context.get("constrain") is not None
    ]
    choices["seeds"] = sorted({cell.seed for cell in cells if cell.seed is not None})
    distinct = {
        name: list(dict.fromkeys(str(value) for value in values if value is not None)) for name, values in choices.items()
    }
    return [(name, ", ".join(values)) for name, values in distinct.items() if values] or [("cells", "none that left numbers")]


def legend(rows: Sequence[Row], table: str | None) -> str:
    """Returns the explanation of the numbers in the main table."""
    sentences = [
        "Q, Q_W and R-L in percent, B as is; n: test turns; unparsed: replies that name no known strategy, misses in Q."
    ]
    if any(cell.cut for row in rows for cell in row.cells):
        sentences.append("cut: replies that ended at the limit of tokens (generation.max_new_tokens).")
    if any(len(row.cells) > 1 for row in rows):
        sentences.append("Over several seeds: mean ± sample standard deviation.")
    if any(row.paper for row in rows) or proxy_baselines(rows, table):
        sentences.append(
            "paper: as published, measured on its own test turns of ExTES, with its own searched data and no constraint."
        )
    if any(verdict(row, metric) for row in rows for metric in METRICS):
        sentences.append(f"{MARKS} (over several seeds also within one standard deviation).")
    return " ".join(sentences)


def _difference_table(comparisons: Sequence[PairedComparison]) -> Table:
    rows = [
        [one.row.name, one.baseline.name, *(difference_text(one.differences[metric]) for metric in METRICS), str(one.n)]
        for one in comparisons
    ]
    return Table("Differences", ["Row", "less", *(HEADERS[metric] for metric in METRICS), "n"], rows)


def difference_lines(comparisons: Sequence[PairedComparison]) -> list[str]:
    """Returns a line for each comparison with a trained row, of Q and B, and what the brackets mean."""
    lines = [
        f"{one.row.name} less {one.baseline.full_method}: "
        + ", ".join(f"{metric} {_plain_difference(one.differences[metric])}" for metric in ("Q", "B"))
        for one in comparisons
        if one.baseline.cells[0].algo != "base"
    ]
    if lines:
        lines.append("[95% interval of a paired bootstrap over test turns]: the difference may be chance where it holds 0.")
    return lines


def _plain_difference(difference: Difference) -> str:
    return f"{difference.value:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"


def difference_text(difference: Difference) -> str:
    """Returns a difference with its interval, in bold where that leaves 0 out."""
    text = _plain_difference(difference)
    return f"**{text}**" if difference.significant else text


def _interval_table(rows: Sequence[Row]) -> Table:
    metrics = ("Q", "B")
    fields = [
        [row.name, NONE if cell.seed is None else str(cell.seed), *(_interval(cell, metric) for metric in metrics)]
        for row in rows
        for cell in row.cells
    ]
    return Table("Intervals", ["Cell", "seed", *(HEADERS[metric] for metric in metrics)], fields)


def _interval(cell: Cell, metric: str) -> str:
    bounds = cell.intervals.get(metric)
    return f"{cell.scores[metric]:.2f}" + (f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else "")


def _interval_legend(cells: Sequence[Cell]) -> str:
    strategies = max((len(cell.strategies) for cell in cells), default=0)
    saturation = f"at {math.sqrt(strategies - 1):.2f}" if strategies > 1 else "at its largest value"
    return (
        f"95% bootstrap intervals over test turns. B saturates {saturation}: there when every reply has one strategy, and also "
        "when one strategy is never missed while others are, so on few test turns a difference in it means little."
    )


def _strategy_sections(rows: Sequence[Row]) -> list[str]:
    """Returns F1 per strategy, one table per set of strategies, and the strategies that a row never predicts."""
    by_set: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_set.setdefault(tuple(row.cells[0].strategies), []).append(row)
    sections = []
    for names, members in by_set.items():
        if not names:
            continue
        lines = [[row.name, *(_f1(row, name) for name in names)] for row in members]
        caption = f"F1 in percent, the mean over seeds. {_NEVER}: never predicted, under any seed.\n\n"
        sections.append("## F1 per strategy\n\n" + caption + markdown_table(["Cell", *names], lines))
        never = {row.name: [name for name in names if _never_predicted(row, name)] for row in members}
        listed = [f"{name} never predicts {', '.join(missing)}" for name, missing in never.items() if missing]
        sections.append(_bullets(listed) if listed else "Every row predicts every strategy.")
    return sections


def _f1(row: Row, strategy: str) -> str:
    mean, _ = mean_and_deviation([cell.strategies[strategy]["f1"] for cell in row.cells if strategy in cell.strategies])
    return f"{mean:.2f}{_NEVER if _never_predicted(row, strategy) else ''}"


def _never_predicted(row: Row, strategy: str) -> bool:
    return all(cell.strategies.get(strategy, {}).get("predicted") == 0 for cell in row.cells)
