"""Converts chat messages to turns: {role, content, strategy}, {from, value}, "(Strategy) text", and transcripts in one text."""

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
_SPEAKER_MARK = re.compile(rf"^[ \t]*({'|'.join(_ROLES)})[ \t]*:", re.IGNORECASE | re.MULTILINE)
# Marks of models' chat templates.
_TEMPLATE = re.compile(r"<\|\w+\|>|<start_of_turn>|\[INST\]|<s>")
# A label before a reply, which may contain brackets: "(Offer Hope (OH)) ...".
_LABEL = re.compile(r"\s*[(\[]\s*((?:[^()\[\]]|[(\[][^()\[\]]*[)\]]){1,80}?)\s*[)\]]:?\s*", re.DOTALL)


def listed(value: object) -> list:
    """Returns a list as it is, another value in a list, and None as an empty list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def role_of(message: object) -> str:
    """Returns SEEKER, SUPPORTER or "system" for a message's role, "" if it has none or another one."""
    fields = message if isinstance(message, dict) else {}
    return _ROLES.get(text(values(fields, {"role", "from"})).lower(), "")


def spoken(message: object, strategies: StrategySet) -> Turn | None:
    """Returns a message as a turn, None for a system message or one without words. Raises Rejected if it has no role.

    A supporter turn has its strategy if that is known.
    """
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
    """Returns the alternating turns of a history; consecutive turns of one speaker are merged."""
    return merge(turn for message in messages if (turn := spoken(message, strategies)))


def reply(value: object, strategies: StrategySet) -> Turn:
    """Returns the supporter turn of {content, strategy} or "(Strategy) text". Raises Rejected if it has no known strategy."""
    fields = value if isinstance(value, dict) else {"content": value}
    words, name = text(values(fields, {"content", "value"})), label(fields)
    if name:
        return supporter_turn(words, name, strategies)
    strategy, remainder = parse_reply(words, strategies)
    match = _LABEL.match(words) if strategy is None else None
    if match:
        return supporter_turn(words[match.end() :], match[1], strategies)
    return supporter_turn(remainder, strategy or "", strategies)


def is_transcript(value: object) -> bool:
    """Returns whether a value is the text of a conversation, which begins with "Human:" or another speaker."""
    return isinstance(value, str) and _SPEAKER_MARK.match(value.lstrip()) is not None


def messages_in(value: object) -> list:
    """Returns the messages of a history, which is a list of them, a transcript, or the text of a single user message.

    Raises Rejected if the speakers of a text are not clear.
    """
    if not isinstance(value, str):
        return listed(value)
    marks = list(_SPEAKER_MARK.finditer(value))
    if _TEMPLATE.search(value) or (marks and value[: marks[0].start()].strip()):
        raise Rejected(Reason.UNCLEAR_PROMPT)
    return list(_messages(value, marks)) if marks else [{"role": "user", "content": value}]


def _messages(words: str, marks: Sequence[re.Match]) -> Iterator[dict]:
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(words)], strict=True):
        yield {"role": mark[1].lower(), "content": words[mark.end() : end].strip()}
