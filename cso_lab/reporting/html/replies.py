"""Single test turns side by side: what was said before, the gold reply, and what each cell replied."""

from cso_lab.dialogue import TEST_DIALOGUES
from cso_lab.reporting.html.charts import Section
from cso_lab.reporting.html.report_data import Material, Run, first_of_each_kind

# Whole dialogues are shown until so many turns are; with more the page would grow without telling more.
MOST_TURNS = 600
_COLUMNS = 3


def turns(material: Material) -> Section | None:
    """The turns that the cells predicted, for the page's script to filter; up to three cells stand side by side."""
    replied = [(run, p) for run in material.measured if (p := material.jsonl(run.folder / "predictions.jsonl"))]
    if not replied:
        return None
    data = _data(material, replied)
    return Section(
        "turns",
        "Test turns side by side",
        "section_turns",
        {
            "data": data,
            "all_turns": data.pop("all"),
            "columns": _first_columns([run for run, _ in replied]),
            "most": MOST_TURNS,
            "without_history": any(not dialogue["whole"] for dialogue in data["dialogues"]),
        },
    )


def _data(material: Material, replied: list[tuple[Run, list[dict]]]) -> dict:
    """As report.js reads it: strategies and dialogues once, a turn as [dialogue, position, gold strategy, gold reply], and per cell one
    [strategy, reply] a turn, or null where the cell has none. A strategy is its place in `strategies`, -1 an unparsed reply."""
    strategies: dict[str, int] = {}
    dialogues: dict[tuple, int] = {}
    shown: list[dict] = []
    found: dict[tuple, int] = {}
    rows: list[list] = []
    for name in dict.fromkeys(name for run, _ in replied for name in run.cell.strategies):
        strategies[name] = len(strategies)

    def place(name: object) -> int:
        return -1 if name is None else strategies.setdefault(str(name), len(strategies))

    every: set[tuple] = set()
    replies = []
    for run, predictions in replied:
        spoken = _spoken(material, run)
        own: dict[int, list] = {}
        for number, prediction in enumerate(predictions):
            dialogue = (run.cell.context.get("data"), str(prediction.get("dialogue", "")))
            position = prediction.get("turn", number)
            every.add((*dialogue, position))
            if dialogue not in dialogues:
                if len(rows) >= MOST_TURNS:
                    continue
                dialogues[dialogue] = len(shown)
                shown.append(_dialogue(dialogue[1], spoken.get(dialogue[1]), place))
            key = (dialogues[dialogue], position)
            if key not in found:
                found[key] = len(rows)
                rows.append([*key, place(prediction.get("gold_strategy")), str(prediction.get("gold_response", ""))])
            said = str(prediction.get("response") or prediction.get("raw") or "")
            own[found[key]] = [place(prediction.get("strategy")), said]
        replies.append(own)
    for dialogue, position, strategy, text in rows:
        if not shown[dialogue]["whole"]:  # all that is known of it is what the supporter said
            shown[dialogue]["turns"].append([position, "supporter", strategy, text])
    return {
        "strategies": list(strategies),
        "cells": [{"name": run.name, "colour": run.colour} for run, _ in replied],
        "dialogues": shown,
        "turns": rows,
        "replies": [[own.get(number) for number in range(len(rows))] for own in replies],
        "all": len(every),
    }


def _spoken(material: Material, run: Run) -> dict[str, dict]:
    """The run's test dialogues by id."""
    return {str(dialogue.get("id")): dialogue for dialogue in material.jsonl(run.folder / TEST_DIALOGUES)}


def _dialogue(name: str, spoken: dict | None, place) -> dict:
    """`turns`: [position, speaker, strategy or null, text, emotion where the data have one]."""
    if spoken is None:
        return {"id": name, "scene": "", "description": "", "whole": False, "turns": []}
    said = [
        [n, turn.get("speaker"), place(turn["strategy"]) if turn.get("strategy") else None, turn.get("text", "")]
        + ([str(turn["emotion"])] if turn.get("emotion") else [])
        for n, turn in enumerate(spoken.get("turns") or [])
        if isinstance(turn, dict)
    ]
    return {
        "id": name,
        "scene": str(spoken.get("scene") or ""),
        "description": str(spoken.get("description") or ""),
        "whole": True,
        "turns": said,
    }


def _first_columns(runs: list[Run]) -> list[int]:
    """Places of the cells that stand side by side at first."""
    first = first_of_each_kind([run.cell for run in runs])
    return sorted([*first, *(place for place in range(len(runs)) if place not in first)][:_COLUMNS])
