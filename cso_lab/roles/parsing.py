"""Parsers of the four roles' replies: they accept every reasonable form and raise ParseError for anything else."""

import re
from functools import partial

from cso_lab.core.records import Scores, SeekerReply
from cso_lab.core.sentences import whole_sentences
from cso_lab.core.strategies import StrategySet, fold_label, parse_reply
from cso_lab.llm.errors import ParseError
from cso_lab.roles.scores import integer, read_table

_END_WORDS = r"end(?:[ _-](?:of[ _-](?:the[ _-])?)?(?:dialogue?|conversation|chat))?"
# In brackets or slashes of any kind, with quotes or backticks around them; or the bare words as the whole reply.
_END = re.compile(
    r"(?:(?<!\S)[\"'`*“‘\\]+)?(?:(?:[<\[{(]|&lt;)\s*[/\\|]*|(?<!\w)/)\s*"
    + _END_WORDS
    + r"\s*(?:[/\\|]*\s*(?:[>\]})]|&gt;)|/(?!\w))|\A\W*"
    + _END_WORDS
    + r"\W*\Z",
    re.IGNORECASE,
)
_SPEAKER = re.compile(r"^[\s*_]*(?:seeker|supporter|user|assistant)[\s*_]*(?:\([^)]*\)[\s*_]*)?:[\s*_]*", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`"}


SUITABILITY = (0, 10)
"""Lowest and highest score of the strategist."""
QUALITY = (0, 4)
"""Lowest and highest score of the judge."""


def parse_seeker(reply: str) -> SeekerReply:
    """Returns the seeker's words before the end token, and whether there is one in any reasonable spelling.

    Raises ParseError if there are neither words nor an end token.
    """
    reply = _utterance(reply)
    end = _END.search(reply)
    text = _utterance(reply[: end.start()] if end else reply)
    if not text and not end:
        raise ParseError("the seeker said nothing")
    return SeekerReply(text or None, bool(end))


def parse_supporter(reply: str, strategies: StrategySet) -> str:
    """Returns the supporter's words without speaker name, strategy label and quotes. Raises ParseError if none are left."""
    text = _utterance(parse_reply(_utterance(reply), strategies)[1])
    if not text:
        raise ParseError("the supporter said nothing")
    return text


def trim_utterance(text: str) -> str:
    """Returns a cut reply up to its end token or else the end of its last whole sentence, "" if it has neither."""
    end = _END.search(text)
    trimmed = text[: end.end()] if end else whole_sentences(text)
    # The quote that would close one around the whole reply has been cut off.
    opening = trimmed[:1]
    return trimmed[1:] if opening in _QUOTES and _QUOTES[opening] not in trimmed[1:] else trimmed


def parse_strategist(reply: str, strategies: StrategySet) -> dict[str, int]:
    """Returns {strategy: score from 0 to 10} for the strategies in the reply, which may be numbered in the order of `strategies`.

    Raises ParseError as `scores.read_table` does.
    """
    return read_table(
        reply, strategies.names, partial(integer, low=SUITABILITY[0], high=SUITABILITY[1]), strategies.find, partial=True
    )


CRITERIA = {"empathy": "E", "information": "I", "humanoid": "H", "strategy": "S"}


def _criterion(label: str) -> str | None:
    """Returns the criterion that a label names; None if it names none."""
    name = fold_label(label)
    name = "strategy" if name == "strategies" else name  # the paper calls the fourth criterion so
    return name if name in CRITERIA else None


def parse_judge(reply: str) -> Scores:
    """Returns {"E", "I", "H", "S"}, each 0 to 4, given by the criteria's names or in the paper's numbered lines ("(1): 3").

    Raises ParseError as `scores.read_table` does, and if a criterion is missing.
    """
    table = read_table(reply, tuple(CRITERIA), partial(integer, low=QUALITY[0], high=QUALITY[1]), _criterion)
    return {letter: table[name] for name, letter in CRITERIA.items()}


def parse_ratings(reply: str, names: tuple[str, ...], highest: int) -> dict[str, int]:
    """Returns an integer from 0 to `highest` for each of `names`. Raises ParseError as `scores.read_table` does."""
    table = read_table(reply, names, partial(integer, low=0, high=highest))
    return {name: table[name] for name in names}


def _utterance(text: str) -> str:
    """Returns the text on one line, without a leading speaker name and without quotes around it."""
    text, previous = " ".join(text.split()), None
    while text != previous:
        previous = text
        text = _unquoted(_SPEAKER.sub("", text)).strip()
    return text


def _unquoted(text: str) -> str:
    """Returns the text without quotes around it. In '"no" and "yes"' there are none around the whole text."""
    if len(text) < 2 or _QUOTES.get(text[0]) != text[-1]:
        return text
    inner, mark = text[1:-1], f"[{text[0]}{text[-1]}]"
    first = re.search(rf"(?P<opens>(?<!\S){mark})|{mark}(?!\w)", inner)
    return inner if first is None or first["opens"] else text
