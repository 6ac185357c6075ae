"""The chat messages a judging model gets about an item, and the parsing of its reply; the same for every judge."""

import re
from collections.abc import Mapping, Sequence
from functools import partial

from cso_lab.core.records import Turn
from cso_lab.core.strategies import format_reply
from cso_lab.judging.items import COMPARISON, CONVERSATIONS, RATING, Item, Sample
from cso_lab.llm.errors import ParseError
from cso_lab.roles.prompts import messages, transcript
from cso_lab.roles.scores import integer, read_table

A, B, TIE = "A", "B", "tie"
# The paper's overall score of a single reply is not asked for: it is the mean of these three (appendix C.2).
OVERALL, PARTS = "satisfaction", ("acceptance", "effectiveness", "sensitivity")

_QUERIES = {
    COMPARISON: "{situation}The conversation so far:\n{conversation}\n\nReply A: {first}\nReply B: {second}",
    RATING: "{situation}The conversation so far:\n{conversation}\n\nReply: {first}",
    CONVERSATIONS: "{situation}Conversation A:\n{first}\n\nConversation B:\n{second}",
}


def asked_criteria(kind: str, criteria: Sequence[str]) -> tuple[str, ...]:
    """Returns the criteria a judge is asked about; in a rating `OVERALL` is computed from its `PARTS` instead."""
    derived = OVERALL if kind == RATING and set(PARTS) <= set(criteria) else None
    return tuple(criterion for criterion in criteria if criterion != derived)


def judge_messages(item: Item, sample: Sample, settings: Mapping, first: int) -> list[dict]:
    """Returns the chat messages about an item; `first` (0 or 1) is the index of the side that is shown first, as A."""
    criteria, show_strategies = asked_criteria(sample.kind, sample.criteria), settings["show_strategies"]
    low, high = settings["scale"]
    sides = [side_text(item, side, show_strategies) for side in range(len(item.sides))]
    values = {
        "rubric": "\n".join(f"{criterion}: {settings['rubric'][criterion]}" for criterion in criteria),
        "answer": "{" + ", ".join(f'"{criterion}": ...' for criterion in criteria) + "}",
        "low": str(low),
        "high": str(high),
        "situation": f"Situation of the seeker: {item.situation}\n\n" if item.situation else "",
        "conversation": transcript(item.history, show_strategies),
        "first": sides[first],
        "second": sides[first - 1],
    }
    return messages(settings[sample.kind], _QUERIES[sample.kind], values)


def side_text(item: Item, side: int, show_strategies: bool) -> str:
    """Returns one of an item's replies or conversations as judges read it, with strategies where `show_strategies`."""
    if item.conversations:
        return transcript(item.conversations[side], show_strategies)
    return _reply_text(item.replies[side], show_strategies)


def _reply_text(reply: Turn, show_strategies: bool) -> str:
    return format_reply(reply.strategy, reply.text) if show_strategies and reply.strategy else reply.text


def read_comparison(reply: str, criteria: Sequence[str]) -> dict[str, str]:
    """Returns {criterion: "A", "B" or "tie"}. Raises ParseError as `scores.read_table` does."""
    return _in_order(read_table(reply, criteria, choice), criteria)


def read_rating(reply: str, criteria: Sequence[str], scale: Sequence[int]) -> dict[str, int]:
    """Returns {criterion: integer on the scale}. Raises ParseError as `scores.read_table` does."""
    return _in_order(read_table(reply, criteria, partial(score, scale=scale)), criteria)


def choice(value: object) -> str:
    """Returns "A", "B" or "tie" for a verdict by a model or person, such as "a", " Tie ", "Conversation B", "[[A]]" or "A is better".

    Raises ParseError for anything else.
    """
    word = " ".join(str(value).lower().split()).strip(" .!*_`\"'()[]") if isinstance(value, str) else ""
    reason = _REASON.search(word)
    for verdict in (word, word[: reason.start()] if reason else word):
        if match := _BETTER.fullmatch(verdict):
            return match["better"].upper()
        if match := _COMPARED_BY_SIGN.fullmatch(verdict):
            return TIE if "=" in match["sign"] else A if (match["first"] == "a") == (">" in match["sign"]) else B
        if verdict in _TIES:
            return TIE
    raise ParseError(f"{value!r} is not A, B or tie")


_SIDE = "reply|response|answer|option|conversation|supporter"
_BETTER = re.compile(
    rf"(?:(?:the )?(?:{_SIDE}) ?)?(?P<better>[ab])(?: (?:wins|is (?:the )?(?:better|stronger)(?: (?:one|{_SIDE}))?))?"
)
_COMPARED_BY_SIGN = re.compile(r"(?P<first>[ab]) ?(?P<sign>>{1,2}|<{1,2}|={1,2}) ?(?!(?P=first))[ab]")
_TIES = {"tie", "a tie", "tied", "draw", "a draw", "equal", "both equal", "equally good", "neither", "no difference"}
# "A (warmer)", "A - it names the feeling": what comes after the verdict.
_REASON = re.compile(r" \(| [-–—] (?=\S+ \S)")


def score(value: object, scale: Sequence[int]) -> int:
    """Returns an integer on the scale for 4, "4", 4.0 or, on a scale to 5, "4/5". Raises ParseError for anything else."""
    return integer(value, *scale)


def _in_order(table: Mapping[str, object], criteria: Sequence[str]) -> dict:
    return {criterion: table[criterion] for criterion in criteria}
