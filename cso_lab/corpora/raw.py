"""What the readers share: words out of whatever holds them, turns into dialogues, faults into counts."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import groupby

from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn
from cso_lab.core.strategies import ESCONV, OTHERS, StrategySet
from cso_lab.corpora.corpus import Corpus, Reason, UnknownLabel
from cso_lab.corpora.formats import fold_key, form_of, values

STRATEGY_KEYS = frozenset({"aistrategy", "strategy"})
# Where an utterance is an object, these hold its words; if none is there, all its values do.
TEXT_KEYS = frozenset({"text", "content", "utterance", "response", "message", "reply", "ai", "user"})
# An utterance is a text, at times a list or an object of texts. What lies deeper is none.
MAX_DEPTH = 8
# What is longer is a text that somebody has put under the wrong key.
LONGEST_LABEL = 200
# Below this likeness a known label is no help beside an unknown one.
NEAREST = 0.7
# Why a record is unusable when it lacks turns, which it may do because some were left out.
_LACKING = (Reason.NO_SEEKER, Reason.TOO_SHORT)


class Rejected(Exception):
    """Raised by a reader's parser for a record, or a part of one, that is unusable; never leaves the reader."""

    def __init__(self, reason: Reason, label: str = ""):
        super().__init__(reason)
        self.reason, self.label = reason, label


@dataclass
class Notes:
    """What was left out of a record that is usable without it, and what was mended: counts by what it was."""

    parts: Counter[str] = field(default_factory=Counter)
    fault: Reason | None = None
    labels: list[str] = field(default_factory=list)

    def leave_out_turn(self, reason: Reason) -> None:
        """Note that a turn is left out; the first reason is the record's where too little is left."""
        self.fault = self.fault or reason
        self.parts[f"turns left out: {reason}"] += 1

    def keep_without_strategy(self, reason: Reason) -> None:
        """Note that a supporter turn is kept for what comes after it, and is no choice of its own."""
        self.fault = self.fault or reason
        self.parts[f"turns kept as history alone: {reason}"] += 1

    def leave_out_negatives(self, reason: str, count: int = 1) -> None:
        if count:
            self.parts[f"dispreferred replies left out: {reason}"] += count


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


def labels(value: object, depth: int = 0) -> Iterator[str]:
    """Every strategy label in a record, but for what stands in the seeker's turns."""
    if depth >= MAX_DEPTH or not isinstance(value, dict | list):
        return
    if isinstance(value, dict):
        yield from filter(None, (text(entry) for entry in values(value, STRATEGY_KEYS)))
        value = [part for key, part in value.items() if fold_key(key) not in (*STRATEGY_KEYS, "user")]
    for part in value:
        yield from labels(part, depth + 1)


def known_strategy(raw_label: str, strategies: StrategySet) -> str | None:
    """The strategy a raw label means, also before a remark in brackets ("Offer Hope (OH)") that is not another strategy; else None."""
    strategy = strategies.find(raw_label)
    remark = len(raw_label) <= LONGEST_LABEL and re.fullmatch(r"(.*[^\s(\[])\s*[(\[]([^()\[\]]*)[)\]]\W*", raw_label, re.DOTALL)
    if strategy is None and remark:
        strategy = strategies.find(remark[1])
        if strategies.find(remark[2]) not in (None, strategy):
            return None
    return strategy


def supporter_turn(words: str, raw_label: str, strategies: StrategySet) -> Turn:
    """A supporter turn with the strategy its raw label means; Rejected when there are no words, or no such strategy."""
    if not words:
        raise Rejected(Reason.NO_TEXT)
    if not raw_label:
        raise Rejected(Reason.NO_STRATEGY)
    strategy = known_strategy(raw_label, strategies)
    if strategy is None:
        raise Rejected(Reason.OTHERS if _means_others(raw_label) else Reason.UNKNOWN_STRATEGY, raw_label)
    return Turn(SUPPORTER, words, strategy)


def _means_others(raw_label: str) -> bool:
    return known_strategy(raw_label, ESCONV) == OTHERS


def merge(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Alternating turns: neighbours of one speaker become one turn.

    Merged supporter turns take the last strategy that is not Others, since it is the one the seeker answers to.
    """
    merged = []
    for speaker, group in groupby(turns, key=lambda turn: turn.speaker):
        group = list(group)
        names = [turn.strategy for turn in group if turn.strategy]
        strategy = next((name for name in reversed(names) if name != OTHERS), names[-1] if names else None)
        merged.append(Turn(speaker, " ".join(turn.text for turn in group), strategy))
    return tuple(merged)


def dialogue(scene: str, description: str, turns: Iterable[Turn], fewest: int = 2) -> Dialogue:
    """A usable dialogue, still without id; Rejected when nobody seeks support or the supporter answers less than `fewest` times in a
    known strategy."""
    made = Dialogue("", scene, description, merge(turns))
    if not any(turn.speaker == SEEKER for turn in made.turns):
        raise Rejected(Reason.NO_SEEKER)
    if sum(made.turns[place].strategy is not None for place in made.supporter_turns()) < fewest:
        raise Rejected(Reason.TOO_SHORT)
    return made


def collect(
    records: Sequence[object], prefix: str, strategies: StrategySet, wanted: str, parse: Callable[[dict, Notes], Dialogue]
) -> Corpus:
    """Parse every record; ids are "<prefix>-<position in the file>". Whatever `parse` rejects is kept under its reason, and what it notes
    of usable records is counted. `wanted`: the key that a record's dialogue is under."""
    dialogues, rejected, parts, unknown = [], {}, Counter(), Counter()
    for index, record in enumerate(records):
        name, notes = f"{prefix}-{index:04d}", Notes()
        try:
            if not isinstance(record, dict):
                raise Rejected(Reason.NOT_A_RECORD)
            made = parse(record, notes)
        except Rejected as fault:
            reason = notes.fault if notes.fault and fault.reason in _LACKING else fault.reason
            rejected.setdefault(reason.value, []).append(name)
        else:
            parts.update(notes.parts)
            dialogues.append(Dialogue(name, made.scene, made.description, made.turns))
        unknown.update(unknown_labels([*labels(record), *notes.labels], strategies))
    missing = "" if dialogues else missing_key(records, wanted)
    return Corpus(tuple(dialogues), rejected, parts, named(unknown, strategies), missing=missing)


def unknown_labels(found: Iterable[str], strategies: StrategySet) -> list[str]:
    """Those of the labels that are neither of the set nor Others."""
    return [name for name in found if known_strategy(name, strategies) is None and not _means_others(name)]


def named(unknown: Mapping[str, int], strategies: StrategySet) -> tuple[UnknownLabel, ...]:
    """Unknown labels with their counts, the most frequent first, each with the known one that is nearest, if any is near."""
    known = {name.lower(): name for name in (*strategies.names, *strategies.aliases)}

    def nearest(label: str) -> str | None:
        longer = [name for name in known if label.lower() in name]
        near = [*get_close_matches(label.lower(), known, n=1, cutoff=NEAREST), *longer]
        return known[near[0]] if near else None

    ordered = sorted(unknown.items(), key=lambda entry: (-entry[1], entry[0]))
    return tuple(UnknownLabel(label, count, nearest(label)) for label, count in ordered)


def missing_key(records: Sequence[object], wanted: str) -> str:
    """What the records lack, and what they seem to be; "" where one of them has it."""
    objects = [record for record in records if isinstance(record, dict)]
    if not objects or any(values(record, {fold_key(key) for key in wanted.split(" or ")}) for record in objects):
        return ""
    keys = list(dict.fromkeys(key for record in objects[:100] for key in record))
    form = form_of(keys)
    return f"no record has the key {wanted}, the first have {', '.join(keys[:6])}" + (f": {form}" if form else "")
