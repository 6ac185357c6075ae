"""What the readers share: records out of a file, words out of whatever holds them, turns into dialogues, faults into counts."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from cso_lab.corpora.corpus import Corpus, Reason
from cso_lab.dialogue import SEEKER, SUPPORTER, Dialogue, Turn
from cso_lab.errors import UserError
from cso_lab.strategies import ESCONV, StrategySet

OTHERS = "Others"
STRATEGY_KEYS = frozenset({"aistrategy", "strategy"})
# Where an utterance is an object, these hold its words; if none is there, all its values do.
TEXT_KEYS = frozenset({"text", "content", "utterance", "response", "message", "reply", "ai", "user"})
# An utterance is a text, at times a list or an object of texts. What lies deeper is none.
MAX_DEPTH = 8


class Rejected(Exception):
    """Raised by a reader's parser for a record that is no usable dialogue; never leaves `collect`."""

    def __init__(self, reason: Reason):
        super().__init__(reason)
        self.reason = reason


def read_records(path: Path) -> list[object]:
    """The records of a JSON list, of {"data": [...]}, or of JSON Lines; a UserError names file and position otherwise."""
    path = Path(path)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start}: not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not content.strip():
        raise UserError(f"{path}: empty; expected a JSON list of records or JSON Lines")

    lines = [(number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]
    if len(lines) > 1 and _is_json(lines[0][1]):
        return [_parse(line, path, number) for number, line in lines]
    value = _parse(content, path)
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        lists = [entry for entry in values(value, {"data"}) if isinstance(entry, list)]
        if lists:
            return lists[0]
        if values(value, {"content", "dialog"}):
            return [value]
    raise UserError(f'{path}: expected a list of records, {{"data": [records]}} or JSON Lines, found {_kind(value)}')


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "an object with the keys " + (", ".join(list(value)[:5]) or "(none)")
    return f"only {json.dumps(value)[:40]}"


def _parse(text: str, path: Path, line: int | None = None) -> object:
    """One JSON value. `line` is the place of a text that is a single line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{line or error.lineno}:{error.colno}: not valid JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:  # nested without end, or a number of thousands of digits
        place = f"{path}:{line}" if line else f"{path}"
        problem = "nested too deeply" if isinstance(error, RecursionError) else "a number with too many digits"
        raise UserError(f"{place}: not readable as JSON ({problem})") from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (RecursionError, ValueError):
        return False
    return True


@lru_cache(maxsize=4096)  # a file has few different keys and very many of each
def fold_key(key: str) -> str:
    """A key without case, blanks and punctuation: "AI strategy", "AI Strategy " and "ai_strategy" are one."""
    return re.sub(r"[\W_]+", "", key).casefold()


def values(record: Mapping[str, object], keys: Iterable[str]) -> list[object]:
    """The values under any spelling of `keys` (given folded), in the record's order."""
    return [value for key, value in record.items() if fold_key(key) in keys]


def text(value: object) -> str:
    """The words in a JSON value, on one line; "" when it has none. Lists and objects are joined in order."""
    joined = " ".join(" ".join(_words(value)).split())
    return joined.encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair cannot be written to any file


def _words(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield str(value)
    elif depth < MAX_DEPTH and isinstance(value, list):
        for item in value:
            yield from _words(item, depth + 1)
    elif depth < MAX_DEPTH and isinstance(value, dict):
        parts = values(value, TEXT_KEYS) or [part for key, part in value.items() if fold_key(key) not in STRATEGY_KEYS]
        yield from _words(parts, depth + 1)


def label(value: object, depth: int = 0) -> str:
    """The first strategy label under a strategy key of an object, or of the objects and lists in it; "" if there is none."""
    if depth >= MAX_DEPTH or not isinstance(value, dict | list):
        return ""
    own = [text(entry) for entry in values(value, STRATEGY_KEYS)] if isinstance(value, dict) else []
    inner = value.values() if isinstance(value, dict) else value
    return next(filter(None, own), "") or next(filter(None, (label(part, depth + 1) for part in inner)), "")


def supporter_turn(words: str, raw_label: str, strategies: StrategySet) -> Turn:
    """A supporter turn with the strategy its raw label means; Rejected when there are no words, or no such strategy."""
    if not words:
        raise Rejected(Reason.NO_TEXT)
    if not raw_label:
        raise Rejected(Reason.NO_STRATEGY)
    strategy = strategies.find(raw_label)
    if strategy is None:
        raise Rejected(Reason.OTHERS if ESCONV.find(raw_label) == OTHERS else Reason.UNKNOWN_STRATEGY)
    return Turn(SUPPORTER, words, strategy)


def merge(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Alternating turns: neighbours of one speaker become one turn.

    Merged supporter turns take the last strategy that is not Others, since it is the one the seeker answers to.
    """
    merged = []
    for speaker, group in groupby(turns, key=lambda turn: turn.speaker):
        group = list(group)
        labels = [turn.strategy for turn in group]
        strategy = next((name for name in reversed(labels) if name != OTHERS), labels[-1])
        merged.append(Turn(speaker, " ".join(turn.text for turn in group), strategy))
    return tuple(merged)


def dialogue(scene: str, description: str, turns: Iterable[Turn]) -> Dialogue:
    """A usable dialogue, still without id; Rejected when nobody seeks support or the supporter answers less than twice."""
    made = Dialogue("", scene, description, merge(turns))
    if not any(turn.speaker == SEEKER for turn in made.turns):
        raise Rejected(Reason.NO_SEEKER)
    if sum(1 for _ in made.supporter_turns()) < 2:
        raise Rejected(Reason.TOO_SHORT)
    return made


def collect(records: Iterable[object], prefix: str, parse: Callable[[dict], Dialogue]) -> Corpus:
    """Parse every record; ids are "<prefix>-<position in the file>". Whatever `parse` rejects is kept under its reason."""
    dialogues, rejected = [], {}
    for index, record in enumerate(records):
        name = f"{prefix}-{index:04d}"
        try:
            if not isinstance(record, dict):
                raise Rejected(Reason.NOT_A_RECORD)
            made = parse(record)
        except Rejected as fault:
            rejected.setdefault(fault.reason.value, []).append(name)
        else:
            dialogues.append(Dialogue(name, made.scene, made.description, made.turns))
    return Corpus(tuple(dialogues), rejected)
