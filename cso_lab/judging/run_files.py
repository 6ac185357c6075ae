"""Reads from a run folder what judging needs: preference pairs, predictions, test dialogues, trees and conversations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cso_lab.conversation.records import CONVERSATION_METRICS, CONVERSATIONS, CUT, Conversation, load_conversations
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, read_jsonl
from cso_lab.core.records import SEEKER, SUPPORTER, TEST_DIALOGUES, Turn
from cso_lab.core.run_folders import stage_folder
from cso_lab.core.strategies import SETS, parse_reply
from cso_lab.expansion.expand import SUMMARY
from cso_lab.expansion.shards import union
from cso_lab.search.tree import Tree


def pairs(run: Path) -> list[dict]:
    """Returns the rows of the run's pairs.jsonl. Raises UserError if the dataset is not on this machine."""
    folder = stage_folder(run, "dataset")
    if folder is None or not (folder / "preferences" / "pairs.jsonl").exists():
        raise UserError(
            f"{run}: its preference data are not here: expected stages.json to name a dataset with preferences/pairs.jsonl"
        )
    return read_jsonl(folder / "preferences" / "pairs.jsonl")


def history_of(messages: Sequence[Mapping]) -> tuple[Turn, ...]:
    """Returns the turns of a row's prompt, without its system message."""
    return tuple(
        Turn(SEEKER, message["content"]) if message["role"] == "user" else reply_of(message["content"])
        for message in messages
        if message["role"] != "system"
    )


def reply_of(text: str) -> Turn:
    """Returns the supporter turn of "(Strategy) text"; without a known strategy, its text is the whole."""
    for strategies in SETS.values():
        name, remainder = parse_reply(text, strategies)
        if name is not None:
            return supporter_turn(remainder, name)
    return supporter_turn(text, None)


def supporter_turn(text: str, strategy: str | None) -> Turn:
    """Returns a supporter turn with its text on one line, as transcripts show it."""
    return Turn(SUPPORTER, one_line(text), strategy)


def one_line(text: str) -> str:
    """Returns a text on one line, so that no line of it can look like another turn; "[no words]" if it is empty."""
    return " ".join(text.split()) or "[no words]"


def predictions(run: Path) -> dict[tuple[str, int], dict]:
    """Returns the lines of the run's predictions.jsonl by (dialogue, turn).

    Raises UserError if the file is missing or a line lacks a field.
    """
    file = Path(run) / "predictions.jsonl"
    if not file.exists():
        raise UserError(f"{run}: no predictions.jsonl in it: expected the folder of a run that has generated")
    rows = read_jsonl(file)
    for number, row in enumerate(rows, start=1):
        missing = [key for key in ("dialogue", "turn", "gold_response", "strategy", "response") if key not in row]
        if missing:
            raise UserError(f"{file}:{number}: missing field {missing[0]!r}")
    return {(str(row["dialogue"]), int(row["turn"])): row for row in rows}


def test_dialogues(run: Path) -> dict[str, dict]:
    """Returns {id: {description, turns: [Turn]}} of the run's test dialogues. Raises UserError if the run has none."""
    file = Path(run) / TEST_DIALOGUES
    if not file.exists():
        raise UserError(f"{file} is missing, so nobody could see what was said before: generate again with rerun=true")
    return {
        str(row["id"]): {"description": row["description"], "turns": [Turn(**turn) for turn in row["turns"]]}
        for row in read_jsonl(file)
    }


def trees(run: Path) -> dict[str, Tree]:
    """Returns the run's trees by dialogue; {} if it searched nothing, or its search is not on this machine."""
    folder = stage_folder(run, "search")
    trees = (Tree.from_json(read_json(file)) for file in union(folder)[0]) if folder else ()
    return {tree.id: tree for tree in trees}


def conversations(run: Path) -> dict[int, Conversation]:
    """Returns the run's conversations by number of the seeker; raises UserError where the run has held none."""
    if not (Path(run) / CONVERSATIONS).exists():
        raise UserError(f"{run}: no {CONVERSATIONS} in it: expected the folder of a run with the stage converse")
    return {conversation.seeker: conversation for conversation in load_conversations(run)}


def conversation_turns(conversation: Conversation) -> tuple[Turn, ...]:
    """Returns the turns of a conversation, each on one line; a supporter that had no words ends it with a turn that says so."""
    turns = tuple(replace(turn, text=one_line(turn.text)) for turn in conversation.history)
    return (*turns, supporter_turn("", None)) if conversation.ending == CUT else turns


def seeker_settings(run: Path) -> dict[str, object]:
    """Returns {configuration key: value} of what makes the run's seekers who they are beside their cards; {} where no file says it."""
    file = Path(run) / CONVERSATION_METRICS
    context = read_json(file)["context"] if file.exists() else {}
    keys = [key for key in ("seed", "max_turns", "threshold") if key in context]
    player = {"conversation.seeker": context["players"]["seeker"]} if "players" in context else {}
    return {f"conversation.{key}": context[key] for key in keys} | player


def search_notices(run: Path) -> list[str]:
    """Returns the warning that role players were simulated, if the run's search.json has one."""
    folder = stage_folder(run, "search")
    file = folder / SUMMARY if folder else None
    notice = read_json(file).get("notice") if file and file.exists() else None
    return [f"The preference data were {notice}."] if notice else []


def run_names(first: Path, second: Path, metrics: str = "metrics.json") -> tuple[tuple[str, str], bool]:
    """Returns (names that tell the two runs apart, whether they are compared in Table 3: preference training against SFT).

    `metrics` is the file of a run folder that describes its cell.
    """
    cells = [read_json(run / metrics)["cell"] if (run / metrics).exists() else {} for run in (first, second)]
    labels = [_label(cell) or run.resolve().name for cell, run in zip(cells, (first, second), strict=True)]
    if labels[0] == labels[1]:
        labels = [run.resolve().name for run in (first, second)]
    if labels[0] == labels[1]:
        labels = [f"{run.resolve().parent.name}/{run.resolve().name}" for run in (first, second)]
    algorithms = [cell.get("algo") for cell in cells]
    return (labels[0], labels[1]), algorithms[0] not in ("base", "sft", None) and algorithms[1] == "sft"


def _label(cell: Mapping) -> str | None:
    return f"{cell['reference']} (reference)" if cell.get("reference") else cell.get("algo_label")
