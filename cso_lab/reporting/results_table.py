"""report.tex: the main table in the paper's form, to be set with the package booktabs."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from cso_lab.reporting.cells import METRICS
from cso_lab.reporting.rows import LOWER_IS_BETTER, Row, mean_and_deviation

_HEADINGS = {
    "Q": r"$\mathcal{Q}\uparrow$",
    "B": r"$\mathcal{B}\downarrow$",
    "Q_W": r"$\mathcal{Q}_W\uparrow$",
    "R-L": r"R-L$\uparrow$",
}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "±": r"$\pm$",
}


def latex(rows: Sequence[Row], title: str) -> str:
    """One block a model: its own name on the row of the untrained model, the tuning once, the best value of each column in bold.

    Our numbers alone, with the models they were measured on; over several seeds mean and sample standard deviation. "" without rows.
    """
    if not rows:
        return ""
    lines = [
        "% \\usepackage{booktabs}",
        r"\begin{table}[t]",
        r"\centering",
        r"\begin{tabular}{ll" + "r" * len(METRICS) + "}",
        r"\toprule",
        " & ".join(["", "", *(_HEADINGS[metric] for metric in METRICS)]).strip() + r" \\",
    ]
    for model, block in groupby(rows, key=lambda row: row.model):
        lines += [r"\midrule", *_block(model, list(block))]
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    return "\n".join(
        [*lines, r"\bottomrule", r"\end{tabular}", rf"\caption{{{escaped(f'{title}: {models}.')}}}", r"\end{table}", ""]
    )


def escaped(text: str) -> str:
    """Plain text as LaTeX shows it."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def _block(model: str, rows: Sequence[Row]) -> list[str]:
    """The lines of one model; a first line with its name alone where the untrained model was not measured."""
    best = {metric: _best(rows, metric) for metric in METRICS}
    plain_first = rows[0].cells[0].algo == "base" and rows[0].cells[0].decoding == "plain" and not rows[0].mark
    lines = [] if plain_first else [rf"\multicolumn{{{2 + len(METRICS)}}}{{l}}{{{escaped(model)}}} \\"]
    tuning = None
    for row in rows:
        named = [rf"\multicolumn{{2}}{{l}}{{{escaped(model if row is rows[0] and plain_first else row.full_method)}}}"]
        if row.tuning:
            named = [escaped(row.tuning) if row.tuning != tuning else "", escaped(row.full_method)]
        tuning = row.tuning
        lines.append(" & ".join([*named, *(_value(row, metric, best) for metric in METRICS)]).strip() + r" \\")
    return lines


def _value(row: Row, metric: str, best: Mapping[str, str]) -> str:
    mean, deviation = mean_and_deviation([cell.scores[metric] for cell in row.cells])
    shown = f"{mean:.2f}"
    text = rf"\textbf{{{shown}}}" if shown == best[metric] else shown
    return text if deviation is None else rf"{text} $\pm$ {deviation:.2f}"


def _best(rows: Sequence[Row], metric: str) -> str:
    """The best value as it is shown, so that all that look alike are bold alike."""
    means = [mean_and_deviation([cell.scores[metric] for cell in row.cells])[0] for row in rows]
    return f"{(min if metric in LOWER_IS_BETTER else max)(means):.2f}"
