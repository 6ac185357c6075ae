"""What players reply, read strictly enough to notice nonsense and kindly enough to take any reasonable form."""

import json
import re
from collections.abc import Iterator

from cso_lab.search.mcts import SeekerReply
from cso_lab.search.tree import Scores
from cso_lab.strategies import StrategySet, parse_reply


class GarbledReply(ValueError):
    """A reply that does not have the form its role promises. It is asked again, a bounded number of times."""


_END_WORDS = r"end(?:[ _-](?:of[ _-](?:the[ _-])?)?(?:dialogue?|conversation|chat))?"
# In brackets or slashes of any kind, with the marks a model puts around code; or the bare words as the whole reply.
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
# "(1): 3", "1. 3", "1) Empathy: 3"; not "1.5", "0-4" or "1: 3.5".
_NUMBERED = re.compile(
    r"(?<![\w.-])\(?(\d{1,2})\)?(?:[.:)=]+\s+|\s*[:=]\s*|\s+[-–—]+\s+)"
    r"(?:[*_]*[^\W\d_][^\d\n:=]*[:=][*_]*\s*)?(\d{1,3})(?!\w|[.,]\d|\s*[-–—]\s*\d)"
)


def parse_seeker(reply: str) -> SeekerReply:
    """The seeker's words, and whether any reasonable spelling of the end token stands among them."""
    reply = _utterance(reply)
    end = _END.search(reply)
    text = _utterance(reply[: end.start()] if end else reply)
    if not text and not end:
        raise GarbledReply("the seeker said nothing")
    return SeekerReply(text or None, bool(end))


def parse_supporter(reply: str, strategies: StrategySet) -> str:
    """The supporter's words alone, whatever label or quotes the model put around them."""
    text = _utterance(parse_reply(_utterance(reply), strategies)[1])
    if not text:
        raise GarbledReply("the supporter said nothing")
    return text


def parse_strategist(reply: str, strategies: StrategySet) -> dict[str, int]:
    """Score (0 to 10) by strategy name, from a JSON object or from numbered lines in the strategies' order."""
    scores = {}
    for key, value in _table(reply, strategies.names).items():
        name = strategies.find(key)
        if name is None:
            raise GarbledReply(f"{key!r} is not one of the strategies")
        scores[name] = _integer(value, 10)
    return scores


_CRITERIA = {"empathy": "E", "information": "I", "humanoid": "H", "strategy": "S"}


def parse_judge(reply: str) -> Scores:
    """{"E", "I", "H", "S"}, each 0 to 4, from a JSON object or from the paper's numbered lines ("(1): 3")."""
    table = {key.strip().lower(): value for key, value in _table(reply, tuple(_CRITERIA)).items()}
    if "strategies" in table:  # the paper's own name for the fourth criterion
        table["strategy"] = table.pop("strategies")
    missing = [name for name in _CRITERIA if name not in table]
    if missing:
        raise GarbledReply(f"no score for {', '.join(missing)}")
    return {letter: _integer(table[name], 4) for name, letter in _CRITERIA.items()}


def parse_ratings(reply: str, names: tuple[str, ...], highest: int) -> dict[str, int]:
    """An integer from 0 to `highest` for each of `names`, from a JSON object, whatever its keys' case, or from numbered lines."""
    table = {key.strip().lower(): value for key, value in _table(reply, names).items()}
    missing = [name for name in names if name.lower() not in table]
    if missing:
        raise GarbledReply(f"no score for {', '.join(missing)}")
    return {name: _integer(table[name.lower()], highest) for name in names}


def _utterance(text: str) -> str:
    """One line, without a speaker's name in front or quotes around it."""
    text, before = " ".join(text.split()), None
    while text != before:
        before = text
        text = _unquoted(_SPEAKER.sub("", text)).strip()
    return text


def _unquoted(text: str) -> str:
    """`text` without the quotes around it; those of '"no" and "yes"' are not around it."""
    if len(text) < 2 or _QUOTES.get(text[0]) != text[-1]:
        return text
    inner, mark = text[1:-1], f"[{text[0]}{text[-1]}]"
    first = re.search(rf"(?P<opens>(?<!\S){mark})|{mark}(?!\w)", inner)
    return inner if first is None or first["opens"] else text


def _table(reply: str, names: tuple[str, ...]) -> dict:
    """The last non-empty JSON object in `reply`; failing that, "number: score" lines, numbers counting `names` from 1."""
    for candidate in json_objects(reply):
        if candidate:
            return candidate
    rows = {int(number): int(score) for number, score in _NUMBERED.findall(reply)}
    if not rows or not all(1 <= number <= len(names) for number in rows):
        raise GarbledReply("neither a JSON object nor numbered scores")
    return {names[number - 1]: score for number, score in rows.items()}


def json_objects(text: str) -> Iterator[dict]:
    """The JSON objects in `text`, bare, fenced or amid prose; the last first, since models think before they answer.

    Objects with nothing but a comma between them are one answer: some models give a list of one object a strategy.
    """
    decoder, found, at, end = json.JSONDecoder(), [], 0, 0
    while (at := text.find("{", at)) >= 0:
        try:
            value, after = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if found and text[end:at].strip() == ",":
            value = found.pop() | value
        found.append(value)
        at = end = after
    return reversed(found)


def _integer(value: object, highest: int) -> int:
    """An integer from 0 to `highest`, also when it came as "7" or 7.0."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 4:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value not in range(highest + 1):
        raise GarbledReply(f"{value!r} is not an integer from 0 to {highest}")
    return int(value)
