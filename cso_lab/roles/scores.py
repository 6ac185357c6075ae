"""Reads named scores or verdicts from a reply, in any form in which a model may reasonably give them.

The forms are JSON, bare, fenced or within prose (one object, a list of objects or pairs, scores nested under a key, a score with its
reason), and lines or tables of text. A reply without scores or with contradictory ones is rejected.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cso_lab.core.strategies import fold_label
from cso_lab.llm.errors import ParseError

Value = TypeVar("Value")


_NAME_KEYS = {"strategy", "name", "criterion", "label", "dimension", "aspect", "category", "metric", "attribute"}
_VALUE_KEYS = {"score", "rating", "value", "points", "grade", "verdict", "winner", "choice", "answer", "better", "preference"}
# Keys of remarks about the scores, which are no scores themselves.
_NOTE_KEYS = {"reason", "reasons", "reasoning", "rationale", "explanation", "explanations", "justification", "analysis"} | {
    *("thought", "thoughts", "thinking", "comment", "comments", "note", "notes", "summary", "confidence", "scale"),
    *("total", "sum", "average", "mean", "overall", "overall score", "total score", "max score", "turn", "id"),
}
# Around a name: "(1) Empathy", "2. Empathy", "Empathy score", "Empathy (0-4)".
_ENUMERATION = re.compile(r"^\W*\d{1,2}\s*[.):-]+\s*")
_ADDITION = re.compile(r"(?:[\s_-]+(?:score|rating)|\s*\([^()]*\))\s*$", re.IGNORECASE)
_NUMBER = r"\d{1,3}(?:\.0+)?(?:\s*(?:/|out of|of)\s*\d{1,3}(?:\.0+)?)?"
# "(1): 3", "1. 3", "1) Empathy: 3/4"; not "1.5", "0-4" or "1: 3.5".
_NUMBERED = re.compile(
    r"(?<![\w.-])\(?(\d{1,2})\)?(?:[.:)=]+\s+|\s*[:=]\s*|\s+[-–—]+\s+)"
    rf"(?:[*_]*([^\W\d_][^\d\n:=]*)[:=][*_]*\s*)?({_NUMBER})(?!\w|[.,/]\d|\s*[-–—/]\s*\d)"
)
# "Empathy: 3", "- **Empathy** - 3/4 (warm)", "| Empathy | 3 |", "'empathy': 3,".
_NAMED = re.compile(
    r"(?:^|(?<=[\n,;{|]))[ \t]*(?:[-*•+][ \t]+)?(?:\(?\d{1,2}[.):]+[ \t]*)?[\"'*_`]*"
    r"(?P<label>[^\W\d_][^\n,;:=|{}\[\]\"]{0,60}?)[\"'*_`]*[ \t]*(?::|=>?|\||->|→|(?<=\s)[-–—](?=\s))[\"'*_` \t]*"
    r"(?P<value>[^\n,;|{}\[\]]{1,60}?)[\"'*_` \t]*(?=[\n,;|}]|$)"
)
_INTEGER = re.compile(
    r"(?P<value>\d{1,3})(?:\.0+)?(?:\s*(?:/|out of|of)\s*(?P<highest>\d{1,3})(?:\.0+)?)?\s*(?P<unit>%|points?|pts)?"
    r"(?:\s*\([^\d]*\)|\s*[-–—:;,.]+(?:\s[^\d]*)?)?",
    re.IGNORECASE,
)


def read_table(
    reply: str,
    names: Sequence[str],
    read: Callable[[object], Value],
    find: Callable[[str], str | None] | None = None,
    partial: bool = False,
) -> dict[str, Value]:
    """Returns {name: value} from the last part of `reply` that has any, in the order of the reply.

    `read` converts the value given for a name and raises ParseError if it is invalid. `find` returns the name that a label refers to,
    or None; by default labels are compared with `names`, ignoring case and spaces. With `partial`, names may be missing, but a value
    under an unknown label is an error, since it may have been meant for one of them.

    Raises ParseError if the reply has no values, or if a value is missing, contradictory or invalid.
    """
    by_label = {fold_label(name): name for name in names}
    reader = _TableReader(tuple(names), read, find or (lambda label: by_label.get(fold_label(label))), partial)
    try:
        return reader.table(reply)
    except RecursionError:
        raise ParseError("too deeply nested") from None


def integer(value: object, low: int, high: int) -> int:
    """Returns `value` as an integer; accepts 7.0, "7", "7/10" if `high` is 10, and "7 (fits well)".

    Raises ParseError if it is no integer from `low` to `high`.
    """
    number = value
    if isinstance(value, str) and (match := _INTEGER.fullmatch(value.strip(" \t\n*_`\"'"))):
        on_this_scale = match["highest"] is None or int(match["highest"]) == high
        if on_this_scale and (match["unit"] != "%" or high == 100):
            number = int(match["value"])
    if isinstance(number, bool) or not isinstance(number, int | float) or number not in range(low, high + 1):
        raise ParseError(f"{_short(value)} is not an integer from {low} to {high}")
    return int(number)


class _Object(list):
    """A JSON object as a list of (key, value) pairs, which keeps duplicate keys."""


@dataclass(frozen=True)
class _TableReader(Generic[Value]):
    """The arguments of `read_table`, and one method per form of reply."""

    names: tuple[str, ...]
    read: Callable[[object], Value]
    find: Callable[[str], str | None]
    partial: bool

    def table(self, reply: str) -> dict[str, Value]:
        """See `read_table`."""
        incomplete = None
        for value in _json_values(reply):
            if table := self._of_json(value):
                if not self._missing(table):
                    return table
                incomplete = incomplete or table
        table = incomplete or self._of_text(reply)
        if not table or self._missing(table):
            raise ParseError(f"no answer for {', '.join(self._missing(table) or self.names)}")
        return table

    def _missing(self, table: dict) -> list[str]:
        return [] if self.partial else [name for name in self.names if name not in table]

    # JSON

    def _of_json(self, value: object) -> dict[str, Value]:
        table: dict[str, Value] = {}
        for name, label, child in self._entries(value):
            if name is not None:
                self._set(table, name, self.read(child))
            elif self.partial and self._readable(child):
                raise ParseError(f"{_short(label)} is not one of {', '.join(self.names)}")
        return table

    def _entries(self, value: object) -> Iterator[tuple[str | None, str, object]]:
        """Yields (name or None, label, value) of everything in a JSON value that may be a score."""
        if isinstance(value, _Object):
            yield from self._entries_of_object(value)
        elif isinstance(value, list):
            if len(value) == 2 and isinstance(value[0], str) and (name := self._name(value[0])):
                yield name, value[0], value[1]
                return
            for child in value:
                yield from self._entries(child)

    def _entries_of_object(self, value: _Object) -> Iterator[tuple[str | None, str, object]]:
        labels = [child for key, child in value if fold_label(key) in _NAME_KEYS and isinstance(child, str)]
        values = [child for key, child in value if fold_label(key) in _VALUE_KEYS]
        if len(labels) == len(values) == 1:  # {"strategy": ..., "score": ..., "reason": ...}
            name = self._name(labels[0])
            if name is not None or not isinstance(values[0], list):
                yield name, labels[0], values[0]
                return
        for key, child in value:
            if name := self._name(key):
                yield name, key, _without_reason(child)
            elif fold_label(key) not in _NOTE_KEYS:
                if isinstance(child, list):
                    yield from self._entries(child)
                else:
                    yield None, key, child

    # text

    def _of_text(self, reply: str) -> dict[str, Value]:
        if reply.count("{") > reply.count("}"):
            raise ParseError("an incomplete JSON object")
        named, numbered = self._named(reply), self._numbered(reply)
        if not named or not numbered:
            return named or numbered
        if named.items() <= numbered.items() and (len(named) == len(numbered) or not self.partial):
            return numbered
        if len(numbered) > len(named):
            raise ParseError("numbered scores, some of them under unknown names")
        return named  # the numbers follow an order of the model's own, such as the best first

    def _named(self, reply: str) -> dict[str, Value]:
        table: dict[str, Value] = {}
        unknown_labels = []
        for match in _NAMED.finditer(reply):
            label, value = match["label"], match["value"]
            if name := self._name(label):
                # "Strategy: well chosen" is a remark and is skipped; "Strategy: 11" is an invalid score and must be an error.
                if self._readable(value) or any(map(str.isdigit, value)):
                    self._set(table, name, self.read(value))
            elif self._readable(value) and fold_label(label) not in _NOTE_KEYS:
                unknown_labels.append(label)
        if table and unknown_labels and self.partial:
            raise ParseError(f"{_short(unknown_labels[0])} is not one of {', '.join(self.names)}")
        return table

    def _numbered(self, reply: str) -> dict[str, Value]:
        """Reads lines that number the names from 1 instead of naming them."""
        table: dict[str, Value] = {}
        for number, _, value in _NUMBERED.findall(reply):
            if not 1 <= int(number) <= len(self.names):
                raise ParseError(f"there is no number {number}")
            self._set(table, self.names[int(number) - 1], self.read(value))
        return table

    # both

    def _name(self, label: str) -> str | None:
        if number := re.fullmatch(r"\W*(\d{1,2})\W*", label):
            at = int(number[1])
            return self.names[at - 1] if 1 <= at <= len(self.names) else None
        return self.find(label) or self.find(_ADDITION.sub("", _ENUMERATION.sub("", label)))

    def _readable(self, value: object) -> bool:
        try:
            self.read(value)
        except ParseError:
            return False
        return True

    @staticmethod
    def _set(table: dict[str, Value], name: str, value: Value) -> None:
        if table.setdefault(name, value) != value:
            raise ParseError(f"{name} has two different values")


def _without_reason(value: object) -> object:
    """Returns the score of {"score": 3, "reason": "..."}; any other value unchanged."""
    if isinstance(value, _Object):
        values = [child for key, child in value if fold_label(key) in _VALUE_KEYS]
        if len(values) == 1:
            return values[0]
    return value


def _json_values(text: str) -> Iterator[object]:
    """Returns the JSON objects and arrays in `text`, the last first, since models reason before they answer.

    Values separated only by spaces or a comma are combined in one list: some models write one object per line.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_Object)
    groups: list[list] = []
    end = 0
    opening = re.compile(r"[{\[]")
    match = opening.search(text)
    while match:
        try:
            value, after = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            after = match.start() + 1
        else:
            if groups and text[end : match.start()].strip() in ("", ","):
                groups[-1].append(value)
            else:
                groups.append([value])
            end = after
        match = opening.search(text, after)
    return reversed(groups)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
