"""Chat messages as turns: {role, content, strategy}, {from, value}, "(Strategy) text", and conversations written out in one text."""

import re
from collections.abc import Iterator, Sequence

from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import StrategySet, parse_reply
from cso_lab.corpora.corpus import Reason
from cso_lab.corpora.formats import values
from cso_lab.corpora.raw import Rejected, label, merge, supporter_turn, text

HISTORY = frozenset({"messages", "conversations"})
_SEEKER, _SUPPORTER, _SYSTEM = ("user", "seeker", "human"), ("assistant", "supporter", "gpt"), ("system",)
_ROLES = {**dict.fromkeys(_SEEKER, SEEKER), **dict.fromkeys(_SUPPORTER, SUPPORTER), **dict.fromkeys(_SYSTEM, "system")}

# "Human: ..." at the beginning of a line.
_SAID = re.compile(rf"^[ \t]*({'|'.join(_ROLES)})[ \t]*:", re.IGNORECASE | re.MULTILINE)
# What only the chat template of some model writes.
_TEMPLATE = re.compile(r"<\|\w+\|>|<start_of_turn>|\[INST\]|<s>")
# A label before a reply, which may end in a remark in brackets: "(Offer Hope (OH)) ...".
_LABEL = re.compile(r"\s*[(\[]\s*((?:[^()\[\]]|[(\[][^()\[\]]*[)\]]){1,80}?)\s*[)\]]:?\s*", re.DOTALL)


def listed(value: object) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def role_of(message: object) -> str:
    """SEEKER, SUPPORTER or "system"; "" where a message does not say, or says something else."""
    fields = message if isinstance(message, dict) else {}
    return _ROLES.get(text(values(fields, {"role", "from"})).lower(), "")


def spoken(message: object, strategies: StrategySet) -> Turn | None:
    """One message as a turn, the supporter's with its strategy if that can be read; None for an instruction, or when it says nothing."""
    fields, role = message if isinstance(message, dict) else {}, role_of(message)
    words = text(values(fields, {"content", "value"}))
    if role == "system" or not words:
        return None
    if not role:
        raise Rejected(Reason.NO_SPEAKER)
    if role == SEEKER:
        return Turn(SEEKER, words)
    try:
        return reply(fields, strategies)
    except Rejected:
        return Turn(SUPPORTER, words)


def spoken_turns(messages: Sequence, strategies: StrategySet) -> tuple[Turn, ...]:
    """A history: alternating turns, neighbours of one speaker merged."""
    return merge(turn for message in messages if (turn := spoken(message, strategies)))


def reply(value: object, strategies: StrategySet) -> Turn:
    """A supporter's reply: {content, strategy}, or its strategy before the text in brackets. Rejected if it has no known strategy."""
    fields = value if isinstance(value, dict) else {"content": value}
    words, name = text(values(fields, {"content", "value"})), label(fields)
    if name:
        return supporter_turn(words, name, strategies)
    found, rest = parse_reply(words, strategies)
    match = _LABEL.match(words) if found is None else None
    return (
        supporter_turn(words[match.end() :], match[1], strategies) if match else supporter_turn(rest, found or "", strategies)
    )


def is_written_out(value: object) -> bool:
    """Whether a text is a conversation that begins with "Human:" or the like."""
    return isinstance(value, str) and _SAID.match(value.lstrip()) is not None


def messages_in(value: object) -> list:
    """The messages of a history: a list of them, or a text, in which "Human:" and "Assistant:" begin a turn if the text begins so.
    Rejected where it is not clear who says what in it."""
    if not isinstance(value, str):
        return listed(value)
    marks = list(_SAID.finditer(value))
    if _TEMPLATE.search(value) or (marks and value[: marks[0].start()].strip()):
        raise Rejected(Reason.UNCLEAR_PROMPT)
    return list(_messages(value, marks)) if marks else [{"role": "user", "content": value}]


def _messages(words: str, marks: Sequence[re.Match]) -> Iterator[dict]:
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(words)], strict=True):
        yield {"role": mark[1].lower(), "content": words[mark.end() : end].strip()}
