"""What players reply, read strictly enough to notice nonsense and kindly enough to take any reasonable form."""

import re
from functools import partial

from cso_lab.core.records import Scores, SeekerReply
from cso_lab.core.strategies import StrategySet, fold_label, parse_reply
from cso_lab.llm.errors import ParseError
from cso_lab.roles.scores import integer, read_table

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


def parse_seeker(reply: str) -> SeekerReply:
    """The seeker's words, and whether any reasonable spelling of the end token stands among them."""
    reply = _utterance(reply)
    end = _END.search(reply)
    text = _utterance(reply[: end.start()] if end else reply)
    if not text and not end:
        raise ParseError("the seeker said nothing")
    return SeekerReply(text or None, bool(end))


def parse_supporter(reply: str, strategies: StrategySet) -> str:
    """The supporter's words alone, whatever label or quotes the model put around them."""
    text = _utterance(parse_reply(_utterance(reply), strategies)[1])
    if not text:
        raise ParseError("the supporter said nothing")
    return text


def parse_strategist(reply: str, strategies: StrategySet) -> dict[str, int]:
    """Score (0 to 10) by strategy name, of those the reply names; by numbers, strategies are counted in their order."""
    return read_table(reply, strategies.names, partial(integer, low=0, high=10), strategies.find, partial=True)


_CRITERIA = {"empathy": "E", "information": "I", "humanoid": "H", "strategy": "S"}


def _criterion(label: str) -> str | None:
    name = fold_label(label)
    name = "strategy" if name == "strategies" else name  # the paper's own name for the fourth criterion
    return name if name in _CRITERIA else None


def parse_judge(reply: str) -> Scores:
    """{"E", "I", "H", "S"}, each 0 to 4, by the criteria's names or by the paper's numbered lines ("(1): 3")."""
    table = read_table(reply, tuple(_CRITERIA), partial(integer, low=0, high=4), _criterion)
    return {letter: table[name] for name, letter in _CRITERIA.items()}


def parse_ratings(reply: str, names: tuple[str, ...], highest: int) -> dict[str, int]:
    """An integer from 0 to `highest` for each of `names`."""
    table = read_table(reply, names, partial(integer, low=0, high=highest))
    return {name: table[name] for name in names}


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
