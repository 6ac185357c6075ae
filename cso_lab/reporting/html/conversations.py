"""Whole conversations: what they came to, how intensity and strategies moved, and the conversations themselves, side by side by seeker."""

from collections.abc import Mapping, Sequence

from cso_lab.conversation.records import CONVERSATIONS, ENDINGS, HIGHEST, LOWEST, Conversation, read_conversations
from cso_lab.core.errors import UserError
from cso_lab.core.tables import NONE, Table, Value, sentence
from cso_lab.evaluation.conversations import CRITERIA, PERCENT
from cso_lab.reporting.conversations import (
    DIFFERENCES,
    HEADERS,
    LEGEND,
    Conversations,
    comparisons,
    difference_table,
    notices,
    results_table,
)
from cso_lab.reporting.html.charts import Chart, ChartGroup, Section, band, bars, chart_label, heatmap, line, wrapped_label
from cso_lab.reporting.html.report_data import ReportData
from cso_lab.reporting.html.results import difference_field

# The page holds at most so much of the conversations; conversations.jsonl in the run folders holds all of them.
MOST_CHARACTERS = 3_000_000
_MOST_HARMFUL = 20
# More cells than the palette has colours cannot be told apart at once; the others can be switched on in the legend.
_MOST_CELLS = 8
# Pixels of a line of the legend: long names stand one below the other.
_LEGEND_LINE = 20
_GROUPED = ("success", "turns_to_success", "intensity", "area")
_LEGEND_ABOVE = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"}


def conversations(report: ReportData) -> Section | None:
    """Returns the numbers of all cells that held conversations, and charts of them; None where none did."""
    held = report.conversations
    if not held:
        return None
    results = results_table(held, _field)
    measured = Table("", results.header, results.rows, LEGEND, [notice] if (notice := _notice(held)) else [])
    tables: list[Table | ChartGroup] = [
        measured,
        ChartGroup("", _setting(held), [_curves(report, held), _by_group(report, held)]),
    ]
    tables.append(ChartGroup("Strategies in conversations", "", [_shares(report, held)]))
    tables.append(ChartGroup("", "", _transitions(held)))
    if compared := comparisons(held):
        table = difference_table(compared, difference_field)
        tables.append(Table("Differences between conversations", table.header, table.rows, DIFFERENCES))
    return Section("conversations", "Whole conversations", "section_tables", {"tables": tables})


def side_by_side(report: ReportData) -> Section | None:
    """Returns the conversations for the page's script to filter, two cells side by side, and the harmful replies; None without any."""
    read = [(each, conversations) for each in report.conversations if (conversations := _conversations(report, each))]
    if not read:
        return None
    data, count = _data(read)
    return Section(
        "seekers",
        "Conversations side by side",
        "section_seekers",
        {
            "data": data,
            "count": count,
            "columns": _first_columns([each for each, _ in read]),
            "personas": sorted({seeker["persona"] for seeker in data["seekers"]}),
            "notice": _notice([each for each, _ in read]),
            "harmful": [_harmful(each) for each, _ in read],
            "most_harmful": _MOST_HARMFUL,
        },
    )


def _notice(held: Sequence[Conversations]) -> str:
    return " ".join(sentence(notice) for notice in notices(held))


def _visible(number: int) -> dict:
    """Returns the attribute of the trace of a cell's number that leaves it to the legend, if there are too many."""
    return {} if number < _MOST_CELLS else {"visible": "legendonly"}


def _field(measure: Mapping) -> Value:
    if measure["value"] is None:
        return Value(NONE)
    return Value(f"{measure['value']:.2f}", "" if measure["low"] is None else f"{measure['low']:.2f} to {measure['high']:.2f}")


def _setting(held: Sequence[Conversations]) -> str:
    """Returns who talked to whom, in a sentence a setting."""
    sentences = []
    for each in held:
        context = each.metrics["context"]
        players = context.get("players") or {}
        sentences.append(
            f"{context.get('seekers')} seekers ({players.get('seeker')}) of {context.get('data')}, at most {context.get('max_turns')} "
            f"supporter turns, relieved at an intensity of {context.get('threshold')} or less; judge: {players.get('judge')}."
        )
    return " ".join(dict.fromkeys(sentences))


def _colours(report: ReportData) -> dict:
    """Returns {folder: colour}, which is that of the run in all charts."""
    return {run.folder: run.colour for run in report.runs}


def _curves(report: ReportData, held: Sequence[Conversations]) -> Chart:
    """Returns the mean intensity after every turn, one line a cell on the band of its interval; references are dashed."""
    colours, data = _colours(report), []
    for number, each in enumerate(held):
        curve = [point for point in each.metrics["curve"] if point["value"] is not None]
        x = list(range(len(curve)))
        shown = {"legendgroup": str(number)} | _visible(number)
        low, high = ([point[end] for point in curve] for end in ("low", "high"))
        dashes = {} if each.cell["reference"] is None else {"line": {"dash": "dash"}}
        hover = "after %{x} turns: %{y:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]"
        about = {"customdata": list(zip(low, high, strict=True)), "hovertemplate": hover}
        data.append(band(x, low, high, colours[each.folder], **shown))
        data.append(line(x, [point["value"] for point in curve], colours[each.folder], each.name, **dashes, **shown, **about))
    thresholds = {each.metrics["context"].get("threshold") for each in held} - {None}
    layout = {
        "height": 340 + _LEGEND_LINE * len(held),
        "xaxis": {"title": {"text": "supporter turns"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "intensity of the emotion"}, "range": [LOWEST, HIGHEST]},
        "legend": _LEGEND_ABOVE,
        "shapes": [
            {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": value, "y1": value} for value in sorted(thresholds)
        ],
    }
    caption = (
        f"Mean intensity of the seekers' emotion ({LOWEST} to {HIGHEST}) after so many supporter turns, with its 95% interval over "
        "seekers; who has left keeps the last intensity. References are dashed; at the horizontal line a seeker is relieved."
    )
    return Chart("chart-conversation-curve", caption, {"intensity": {"data": data, "layout": layout}})


def _by_group(report: ReportData, held: Sequence[Conversations]) -> Chart:
    """Returns bars by persona and by scene, of the measure that the reader chooses."""
    colours = _colours(report)
    figures = {
        f"{HEADERS[measure]} by {kind}": _grouped_bars(held, f"by_{kind}", measure, colours)
        for kind in ("persona", "scene")
        for measure in _GROUPED
    }
    caption = (
        "The bar is the mean over the seekers of a group, the line its 95% interval; point at a bar for the number of seekers."
    )
    return Chart("chart-conversation-groups", caption, figures)


def _grouped_bars(held: Sequence[Conversations], key: str, measure: str, colours: Mapping) -> dict:
    names = sorted({name for each in held for name in each.metrics[key]})
    data = []
    for number, each in enumerate(held):
        groups = each.metrics[key]
        values = [groups[name]["measures"][measure] if name in groups else None for name in names]
        x = [value and value["value"] for value in values]
        error = {
            "type": "data",
            "symmetric": False,
            "array": [value["high"] - value["value"] if value and value["value"] is not None else 0 for value in values],
            "arrayminus": [value["value"] - value["low"] if value and value["value"] is not None else 0 for value in values],
        }
        counts = [groups[name]["n"] if name in groups else 0 for name in names]
        about = {"customdata": counts, "hovertemplate": "%{y}: %{x:.2f}, %{customdata} seekers"} | _visible(number)
        data.append(bars(list(map(wrapped_label, names)), x, colours[each.folder], each.name, error_x=error, **about))
    return _bar_figure(data, len(names), HEADERS[measure])


def _bar_figure(data: list[dict], groups: int, title: str) -> dict:
    layout = {
        "height": 60 + _LEGEND_LINE * len(data) + groups * (18 + 9 * min(len(data), _MOST_CELLS)),
        "barmode": "group",
        "bargap": 0.2,
        "xaxis": {"title": {"text": chart_label(title)}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed"},
        "legend": _LEGEND_ABOVE,
    }
    return {"data": data, "layout": layout}


def _transitions(held: Sequence[Conversations]) -> list[Chart]:
    """Returns two heat maps, each of a cell that the reader chooses: which strategy follows which."""
    hover = "after %{y}<br>came %{x}<br>%{text} times, %{z}% of the row<extra></extra>"
    figures = {}
    for each in held:
        strategies = each.metrics["strategies"]
        figures[each.name] = heatmap(strategies["transitions"], strategies["names"], strategies["names"], hover)
    caption = (
        "Rows: the strategy of a supporter turn; columns: that of the next; how often, and the stronger the colour, the larger the share "
        "of the row. On the diagonal a strategy was repeated."
    )
    sides = zip(("left", "right"), _first_columns(held), strict=False)
    return [Chart(f"chart-transitions-{side}", caption, figures, shown, "cell") for side, shown in sides]


def _shares(report: ReportData, held: Sequence[Conversations]) -> Chart:
    """Returns bars of how often each cell chose each strategy."""
    colours = _colours(report)
    names = list(dict.fromkeys(name for each in held for name in each.metrics["strategies"]["names"]))
    data = []
    for number, each in enumerate(held):
        share = each.metrics["strategies"]["share"]
        values = [PERCENT * share[name] if name in share else None for name in names]
        about = {"hovertemplate": "%{y}: %{x:.1f}%"} | _visible(number)
        data.append(bars(list(map(wrapped_label, names)), values, colours[each.folder], each.name, **about))
    caption = "Percent of the supporter turns that name a strategy."
    return Chart(
        "chart-conversation-strategies", caption, {"share": _bar_figure(data, len(names), "share of turns in percent")}
    )


def _first_columns(held: Sequence[Conversations]) -> list[int]:
    """Returns the places of the two cells shown side by side at first: the untrained model or the first cell, and the last model or else
    the first reference."""
    models = [index for index, each in enumerate(held) if each.cell["reference"] is None]
    first = models[0] if models else 0
    return list(dict.fromkeys([first, models[-1] if len(models) > 1 else len(models) or len(held) - 1]))[: len(held)]


def _harmful(each: Conversations) -> dict:
    harm = each.metrics["harm"]
    return {
        "name": each.name,
        "count": harm["count"],
        "kinds": ", ".join(f"{kind} {count}" for kind, count in harm["kinds"].items()),
        "unjudged": harm["unjudged"],
        "turns": harm["turns"][:_MOST_HARMFUL],
    }


def _conversations(report: ReportData, each: Conversations) -> list[Conversation]:
    """Returns the conversations of a run, [] where its file is missing or damaged."""
    file = each.folder / CONVERSATIONS
    try:
        return read_conversations(file)
    except UserError as error:
        report.add_problem(str(file), str(error))
        return []


def _data(cells: Sequence[tuple[Conversations, Sequence[Conversation]]]) -> tuple[dict, int]:
    """Returns (the conversations as conversations.js reads them, the number of seekers before those beyond MOST_CHARACTERS were left out).

    Seekers are listed once, by their number. `held` has for each cell one conversation a seeker, None where it held none:
    [ending, side that cut it, turns]; a turn is [strategy, text, the seeker's answer, intensity, harm, scores]. A strategy is an index into
    `strategies`, -1 where none was named; scores are in the order of CRITERIA.
    """
    strategies: dict[str, int] = {}
    by_seeker: dict[tuple, dict[int, Conversation]] = {}
    for cell, (_, conversations) in enumerate(cells):
        for conversation in conversations:
            card = conversation.card
            by_seeker.setdefault((conversation.seeker, card.id, card.persona, card.intensity), {})[cell] = conversation
    seekers, held, room = [], [[] for _ in cells], MOST_CHARACTERS
    for _, of_seeker in sorted(by_seeker.items(), key=lambda item: item[0][0]):
        room -= sum(_length(conversation) for conversation in of_seeker.values())
        if seekers and room < 0:
            break
        seekers.append(_seeker(next(iter(of_seeker.values()))))
        for cell, conversations in enumerate(held):
            conversations.append(_talk(of_seeker[cell], strategies) if cell in of_seeker else None)
    data = {
        "scale": [LOWEST, HIGHEST],
        "criteria": list(CRITERIA),
        "endings": list(ENDINGS),
        "cells": [each.name for each, _ in cells],
        "thresholds": [each.metrics["context"]["threshold"] for each, _ in cells],
        "seekers": seekers,
        "held": held,
        "longest": max((len(talk[2]) for conversations in held for talk in conversations if talk), default=0) or 1,
        "strategies": list(strategies),
    }
    return data, len(by_seeker)


def _length(conversation: Conversation) -> int:
    return sum(len(exchange.text) + len(exchange.seeker or "") for exchange in conversation.exchanges)


def _seeker(conversation: Conversation) -> dict:
    card = conversation.card
    return {
        "number": conversation.seeker,
        "card": card.id,
        "scene": card.scene,
        "description": card.description,
        "persona": card.persona,
        "intensity": card.intensity,
        "opening": card.opening,
    }


def _talk(conversation: Conversation, strategies: dict[str, int]) -> list:
    turns = [
        [
            -1 if exchange.strategy is None else strategies.setdefault(exchange.strategy, len(strategies)),
            exchange.text,
            exchange.seeker,
            round(exchange.intensity, 2),
            list(exchange.harm or ()),
            [exchange.scores[criterion] for criterion in CRITERIA] if exchange.scores else None,
        ]
        for exchange in conversation.exchanges
    ]
    return [conversation.ending, conversation.cut_by, turns]
