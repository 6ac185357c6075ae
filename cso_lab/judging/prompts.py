"""The chat messages a judging model gets about an item, and the parsing of its reply; the same for every judge."""

from collections.abc import Mapping, Sequence

from cso_lab.dialogue import Turn
from cso_lab.judging.items import COMPARISON, Item, Sample
from cso_lab.roles.parsing import GarbledReply, json_objects
from cso_lab.roles.prompts import messages, transcript
from cso_lab.strategies import format_reply

A, B, TIE = "A", "B", "tie"
# The paper's overall score of a single reply is not asked for: it is the mean of these three (appendix C.2).
OVERALL, PARTS = "satisfaction", ("acceptance", "effectiveness", "sensitivity")

_COMPARED = "{situation}The conversation so far:\n{conversation}\n\nReply A: {first}\nReply B: {second}"
_RATED = "{situation}The conversation so far:\n{conversation}\n\nReply: {first}"


def asked_criteria(kind: str, criteria: Sequence[str]) -> tuple[str, ...]:
    """Returns the criteria a judge is asked about; in a rating `OVERALL` is computed from its `PARTS` instead."""
    derived = OVERALL if kind != COMPARISON and set(PARTS) <= set(criteria) else None
    return tuple(criterion for criterion in criteria if criterion != derived)


def judge_messages(item: Item, sample: Sample, settings: Mapping, first: int) -> list[dict]:
    """Returns the chat messages about an item; `first` (0 or 1) is the index of the reply that is shown first, as A."""
    criteria, compared = asked_criteria(sample.kind, sample.criteria), sample.kind == COMPARISON
    low, high = settings["scale"]
    shown = (item.replies[first], item.replies[first - 1]) if compared else item.replies
    values = {
        "rubric": "\n".join(f"{criterion}: {settings['rubric'][criterion]}" for criterion in criteria),
        "answer": "{" + ", ".join(f'"{criterion}": ...' for criterion in criteria) + "}",
        "low": str(low),
        "high": str(high),
        "situation": f"Situation of the seeker: {item.situation}\n\n" if item.situation else "",
        "conversation": transcript(item.history, settings["show_strategies"]),
        "first": reply_text(shown[0], settings["show_strategies"]),
        "second": reply_text(shown[-1], settings["show_strategies"]),
    }
    return messages(settings["comparison" if compared else "rating"], _COMPARED if compared else _RATED, values)


def reply_text(reply: Turn, show_strategies: bool) -> str:
    """Returns a reply as judges read it, with its strategy where `show_strategies`."""
    return format_reply(reply.strategy, reply.text) if show_strategies and reply.strategy else reply.text


def read_comparison(reply: str, criteria: Sequence[str]) -> dict[str, str]:
    """{criterion: "A", "B" or "tie"}."""
    return {criterion: choice(value) for criterion, value in _table(reply, criteria).items()}


def read_rating(reply: str, criteria: Sequence[str], scale: Sequence[int]) -> dict[str, int]:
    """{criterion: integer on the scale}."""
    return {criterion: score(value, scale) for criterion, value in _table(reply, criteria).items()}


def choice(value: object) -> str:
    """A verdict from what a judge wrote, model or person: "a", " Tie " and "Reply B" are understood."""
    word = str(value).strip().lower().removeprefix("reply").strip()
    found = {"a": A, "b": B, "tie": TIE}.get(word)
    if found is None:
        raise GarbledReply(f"{value!r} is not A, B or tie")
    return found


def score(value: object, scale: Sequence[int]) -> int:
    """An integer on the scale, also when it came as "4" or 4.0."""
    low, high = scale
    text = str(value).strip().removesuffix(".0")
    if not text.isdecimal() or not low <= int(text) <= high:
        raise GarbledReply(f"{value!r} is not an integer from {low} to {high}")
    return int(text)


def _table(reply: str, criteria: Sequence[str]) -> dict[str, object]:
    """The last JSON object of a reply that answers for every criterion."""
    missing = list(criteria)
    for found in json_objects(reply):
        table = {str(key).strip().lower(): value for key, value in found.items()}
        missing = [criterion for criterion in criteria if criterion not in table]
        if not missing:
            return {criterion: table[criterion] for criterion in criteria}
    raise GarbledReply(f"no answer for {', '.join(missing)}")
