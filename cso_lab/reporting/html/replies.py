"""Single test turns side by side: the history, the gold reply, and each run's reply."""

from collections.abc import Callable

from cso_lab.core.records import TEST_DIALOGUES
from cso_lab.llm.reasoning import strip_reasoning
from cso_lab.reporting.html.charts import Section
from cso_lab.reporting.html.report_data import ReportData, Run, first_of_each_kind

# Dialogues are added until there are so many turns; more would make the page larger without telling more.
MOST_TURNS = 600
_COLUMNS = 3


def replies_section(report: ReportData) -> Section | None:
    """Returns the predicted turns for the page's script to filter, up to three runs side by side; None without predictions."""
    replied = [(run, p) for run in report.measured if (p := report.jsonl(run.folder / "predictions.jsonl"))]
    if not replied:
        return None
    data = _data(report, replied)
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


def _data(report: ReportData, replied: list[tuple[Run, list[dict]]]) -> dict:
    """Returns the turns as turns.js reads them.

    Strategies and dialogues are listed once. A turn is [dialogue, position, gold strategy, gold reply], and each cell has one
    [strategy, reply] per turn, None if it predicted none. A strategy is an index into `strategies`, -1 of an unparsed reply.
    """
    strategies: dict[str, int] = {}
    dialogue_numbers: dict[tuple, int] = {}
    dialogues: list[dict] = []
    turn_numbers: dict[tuple, int] = {}
    turns: list[list] = []
    for name in dict.fromkeys(name for run, _ in replied for name in run.cell.strategies):
        strategies[name] = len(strategies)

    def index(name: object) -> int:
        return -1 if name is None else strategies.setdefault(str(name), len(strategies))

    all_turns: set[tuple] = set()
    replies = []
    for run, predictions in replied:
        test_dialogues = _test_dialogues(report, run)
        of_run: dict[int, list] = {}
        for number, prediction in enumerate(predictions):
            dialogue = (run.cell.context.get("data"), str(prediction.get("dialogue", "")))
            position = prediction.get("turn", number)
            all_turns.add((*dialogue, position))
            if dialogue not in dialogue_numbers:
                if len(turns) >= MOST_TURNS:
                    continue
                dialogue_numbers[dialogue] = len(dialogues)
                dialogues.append(_dialogue(dialogue[1], test_dialogues.get(dialogue[1]), index))
            key = (dialogue_numbers[dialogue], position)
            if key not in turn_numbers:
                turn_numbers[key] = len(turns)
                turns.append([*key, index(prediction.get("gold_strategy")), str(prediction.get("gold_response", ""))])
            reply = str(prediction.get("response") or strip_reasoning(str(prediction.get("raw") or "")))
            of_run[turn_numbers[key]] = [index(prediction.get("strategy")), reply]
        replies.append(of_run)
    for dialogue, position, strategy, text in turns:
        if not dialogues[dialogue]["whole"]:  # without its test dialogues, a run tells only the supporter's turns
            dialogues[dialogue]["turns"].append([position, "supporter", strategy, text])
    return {
        "strategies": list(strategies),
        "cells": [{"name": run.name, "colour": run.colour} for run, _ in replied],
        "dialogues": dialogues,
        "turns": turns,
        "replies": [[of_run.get(number) for number in range(len(turns))] for of_run in replies],
        "all": len(all_turns),
    }


def _test_dialogues(report: ReportData, run: Run) -> dict[str, dict]:
    """Returns the run's test dialogues by id."""
    return {str(dialogue.get("id")): dialogue for dialogue in report.jsonl(run.folder / TEST_DIALOGUES)}


def _dialogue(name: str, dialogue: dict | None, index: Callable[[object], int]) -> dict:
    """Returns a dialogue for the page's script; a turn is [position, speaker, strategy or None, text, emotion if there is one]."""
    if dialogue is None:
        return {"id": name, "scene": "", "description": "", "whole": False, "turns": []}
    turns = [
        [position, turn.get("speaker"), index(turn["strategy"]) if turn.get("strategy") else None, turn.get("text", "")]
        + ([str(turn["emotion"])] if turn.get("emotion") else [])
        for position, turn in enumerate(dialogue.get("turns") or [])
        if isinstance(turn, dict)
    ]
    return {
        "id": name,
        "scene": str(dialogue.get("scene") or ""),
        "description": str(dialogue.get("description") or ""),
        "whole": True,
        "turns": turns,
    }


def _first_columns(runs: list[Run]) -> list[int]:
    """Returns the indices of the runs that are shown side by side at first."""
    first = first_of_each_kind([run.cell for run in runs])
    return sorted([*first, *(index for index in range(len(runs)) if index not in first)][:_COLUMNS])
