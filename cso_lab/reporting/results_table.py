"""The main table of a report, in the form of the paper's Tables 2, 4 and 9 to 12: as text, CSV and LaTeX (package booktabs)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from cso_lab.core.tables import NONE, Table
from cso_lab.reporting.cells import METRICS, Cell
from cso_lab.reporting.comparison import proxy_baselines, proxy_heading, proxy_scores, verdict
from cso_lab.reporting.rows import HEADERS, LOWER_IS_BETTER, Row, mean_and_deviation, paper_scores

TEXT_METRICS = "Text metrics"
TEXT_METRICS_LEGEND = (
    "Over the replies without their strategy, the mean over seeds; words: mean length of a reply, the others in percent. distinct-1 and -2 "
    "fall with the number of replies: compare rows of the same test turns."
)

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


@dataclass(frozen=True)
class ResultsTable:
    """Q, B, Q_W and R-L of every row; `table` ("9") is the paper's table whose scores are looked up first, None for any."""

    rows: Sequence[Row]
    table: str | None = None

    @cached_property
    def proxies(self) -> list[str]:
        """The backbones of the paper whose scores are shown in columns of their own (`comparison.proxy_baselines`)."""
        return proxy_baselines(self.rows, self.table)

    @property
    def with_paper(self) -> bool:
        """Whether the paper has scores of any row."""
        return any(row.paper for row in self.rows)

    @property
    def with_cut(self) -> bool:
        """Whether any reply ended at the limit of tokens."""
        return any(cell.cut for row in self.rows for cell in row.cells)

    @property
    def proxy_columns(self) -> dict[str, list[str]]:
        """{heading: one field per row}: the paper's four scores of the row's method on another model, in one column each."""
        columns = {}
        for backbone in self.proxies:
            scores = [proxy_scores(row, backbone, self.table) for row in self.rows]
            fields = [" / ".join(f"{values[metric]:.2f}" for metric in METRICS) if values else NONE for values in scores]
            columns[f"{proxy_heading(backbone)}: {' / '.join(METRICS)}"] = fields
        return columns

    def text(self, title: str = "", model_column: bool = True) -> Table:
        """Returns the table for Markdown and the terminal.

        Scores are means ± sample standard deviations over seeds, each beside the paper's if any row has one; then come the
        numbers of test turns, unparsed replies, cut replies (if there are any) and seeds, and other models' published scores.
        `model_column` is left out where the title names the one model of all rows.
        """
        header = ["Model", "Tuning", "Method"]
        for metric in METRICS:
            header += [HEADERS[metric], "paper"] if self.with_paper else [HEADERS[metric]]
        header += ["n", "unparsed", *(["cut"] if self.with_cut else []), "seeds", *self.proxy_columns]
        fields = [
            [*self._row_fields(row), *proxies] for row, *proxies in zip(self.rows, *self.proxy_columns.values(), strict=True)
        ]
        first = 0 if model_column else 1
        return Table(title, header[first:], [row[first:] for row in fields], text_columns=3 - first)

    def text_metrics(self) -> Table | None:
        """Returns the metrics of `evaluation.text`, means over seeds, of the rows that have any; None if none has."""
        names = list(dict.fromkeys(name for row in self.rows for cell in row.cells for name in cell.text))
        rows = [
            [row.name, *(_mean([cell.text[name] for cell in row.cells if name in cell.text]) for name in names)]
            for row in self.rows
            if any(cell.text for cell in row.cells)
        ]
        return Table(TEXT_METRICS, ["Row", *names], rows, caption=TEXT_METRICS_LEGEND) if rows else None

    def _row_fields(self, row: Row) -> list[str]:
        fields = [row.model, row.tuning or NONE, row.full_method]
        for metric in METRICS:
            mean, deviation = row.score(metric)
            fields.append(f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}")
            if self.with_paper:
                fields.append(f"{row.paper[metric]:.2f} {verdict(row, metric)}".strip() if row.paper else NONE)
        seeds = [cell.seed for cell in row.cells if cell.seed is not None]
        return [
            *fields,
            _span(cell.n for cell in row.cells),
            _span(cell.unparsed for cell in row.cells),
            *([_span(cell.cut for cell in row.cells)] if self.with_cut else []),
            str(len(seeds) or NONE),
        ]

    def csv(self) -> str:
        """Returns one line per cell and seed with unrounded numbers; the paper's columns only where any row has such scores."""
        records = [self._record(row, cell) for row in self.rows for cell in row.cells]
        columns = list(dict.fromkeys(key for record in records for key in record))
        return Table("", columns, [[record.get(column) for column in columns] for record in records]).csv()

    def _record(self, row: Row, cell: Cell) -> dict:
        keys = ("backbone", "label", "mode", "algo", "algo_label", "start_from", "decoding", "preferences", "variant", "seed")
        record = {
            "row": row.name,
            **{key: getattr(cell, key) for key in keys},
            **cell.scores,
            "n": cell.n,
            "unparsed": cell.unparsed,
            **cell.text,
            **({"cut": cell.cut} if self.with_cut else {}),
        }
        for metric in METRICS:
            low, high = cell.intervals.get(metric, (None, None))
            record |= {f"{metric}_low": low, f"{metric}_high": high}
        if self.with_paper:
            paper = paper_scores(cell, self.table) or {}
            record |= {f"{metric}_paper": paper.get(metric) for metric in METRICS}
        for backbone in self.proxies:
            scores = proxy_scores(row, backbone, self.table) or {}
            record |= {f"{proxy_heading(backbone)} {metric}": scores.get(metric) for metric in METRICS}
        context = {key: cell.context_value(key) for key in cell.context if key not in record} | dict(cell.varied)
        return (
            record
            | {f"F1 {name}": values["f1"] for name, values in cell.strategies.items()}
            | context
            | {"folder": cell.folder.name}
        )

    def latex(self, title: str) -> str:
        """Returns the table as LaTeX, "" without rows: our scores alone, with the best of each column and model in bold.

        One block per model: its name is on the row of the untrained model, and each tuning is named once.
        """
        if not self.rows:
            return ""
        lines = [
            r"% \usepackage{booktabs}",
            r"\begin{table}[t]",
            r"\centering",
            r"\begin{tabular}{ll" + "r" * len(METRICS) + "}",
            r"\toprule",
            " & ".join(["", "", *(_HEADINGS[metric] for metric in METRICS)]).strip() + r" \\",
        ]
        for model, block in groupby(self.rows, key=lambda row: row.model):
            lines += [r"\midrule", *_block(model, list(block))]
        models = ", ".join(dict.fromkeys(row.model for row in self.rows))
        caption = rf"\caption{{{escape_latex(f'{title}: {models}.')}}}"
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", caption, r"\end{table}", ""])


def escape_latex(text: str) -> str:
    """Returns plain text with the characters escaped that LaTeX treats specially."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def _block(model: str, rows: Sequence[Row]) -> list[str]:
    """Returns the lines of one model; the first holds its name alone where the untrained model was not measured."""
    best = {metric: _best(rows, metric) for metric in METRICS}
    plain_first = rows[0].cells[0].algo == "base" and rows[0].cells[0].decoding == "plain" and not rows[0].mark
    lines = [] if plain_first else [rf"\multicolumn{{{2 + len(METRICS)}}}{{l}}{{{escape_latex(model)}}} \\"]
    tuning = None
    for row in rows:
        fields = [rf"\multicolumn{{2}}{{l}}{{{escape_latex(model if row is rows[0] and plain_first else row.full_method)}}}"]
        if row.tuning:
            fields = [escape_latex(row.tuning) if row.tuning != tuning else "", escape_latex(row.full_method)]
        tuning = row.tuning
        lines.append(" & ".join([*fields, *(_value(row, metric, best) for metric in METRICS)]).strip() + r" \\")
    return lines


def _value(row: Row, metric: str, best: Mapping[str, str]) -> str:
    mean, deviation = row.score(metric)
    number = f"{mean:.2f}"
    text = rf"\textbf{{{number}}}" if number == best[metric] else number
    return text if deviation is None else rf"{text} $\pm$ {deviation:.2f}"


def _best(rows: Sequence[Row], metric: str) -> str:
    """Returns the best mean as it is printed, so that values which print alike are all bold."""
    means = [row.score(metric)[0] for row in rows]
    return f"{(min if metric in LOWER_IS_BETTER else max)(means):.2f}"


def _mean(values: Sequence[float]) -> str:
    return f"{mean_and_deviation(values)[0]:.2f}" if values else NONE


def _span(counts: Iterable[int | None]) -> str:
    """Returns a count, or "LOW to HIGH" of several different ones."""
    values = sorted({count for count in counts if count is not None})
    return NONE if not values else str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
