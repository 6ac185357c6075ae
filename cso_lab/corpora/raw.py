"""Helpers of the readers: text and labels of JSON values, dialogues of turns, counts of what is left out."""

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
# Keys of an utterance's words if it is an object; without any of them, all its values are words.
TEXT_KEYS = frozenset({"text", "content", "utterance", "response", "message", "reply", "ai", "user"})
# An utterance is a text, or a list or an object of texts; values nested deeper are ignored.
MAX_DEPTH = 8
# A longer label is a text under the wrong key.
MAX_LABEL_LENGTH = 200
# The least similarity (of difflib) of a known label that is suggested for an unknown one.
MIN_LABEL_SIMILARITY = 0.7
# Reasons of records with too few turns. If turns were left out before, the reason of the first of these is reported instead.
_TOO_FEW_TURNS = (Reason.NO_SEEKER, Reason.TOO_SHORT)


class Rejected(Exception):
    """Raised for a record, or a part of one, that is unusable, with the reason and the label if that is unknown. Caught by the readers."""

    def __init__(self, reason: Reason, label: str = ""):
        super().__init__(reason)
        self.reason, self.label = reason, label


@dataclass
class Notes:
    """Counts of what was left out of a usable record or corrected in it, by description; the first `fault`; and unknown `labels`."""

    parts: Counter[str] = field(default_factory=Counter)
    fault: Reason | None = None
    labels: list[str] = field(default_factory=list)

    def leave_out_turn(self, reason: Reason) -> None:
        """Counts a turn that is left out; the first reason becomes the record's if too few turns remain."""
        self.fault = self.fault or reason
        self.parts[f"turns left out: {reason}"] += 1

    def keep_without_strategy(self, reason: Reason) -> None:
        """Counts a supporter turn that is kept in the history only, because it has no known strategy."""
        self.fault = self.fault or reason
        self.parts[f"turns kept as history alone: {reason}"] += 1

    def leave_out_negatives(self, reason: str, count: int = 1) -> None:
        """Counts dispreferred replies that are left out."""
        if count:
            self.parts[f"dispreferred replies left out: {reason}"] += count


def text(value: object) -> str:
    """Returns the words in a JSON value on one line, "" if it has none. Lists and objects are joined in order."""
    joined = " ".join(" ".join(_words(value)).split())
    return joined.encode("utf-8", "replace").decode("utf-8")  # an unpaired surrogate could not be written to a file


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
    """Returns the first label under a strategy key of an object, or of the objects and lists in it; "" if there is none."""
    if depth >= MAX_DEPTH or not isinstance(value, dict | list):
        return ""
    labels = [text(entry) for entry in values(value, STRATEGY_KEYS)] if isinstance(value, dict) else []
    inner = value.values() if isinstance(value, dict) else value
    return next(filter(None, labels), "") or next(filter(None, (label(part, depth + 1) for part in inner)), "")


def labels(value: object, depth: int = 0) -> Iterator[str]:
    """Yields every strategy label in a record except those in the seeker's turns."""
    if depth >= MAX_DEPTH or not isinstance(value, dict | list):
        return
    if isinstance(value, dict):
        yield from filter(None, (text(entry) for entry in values(value, STRATEGY_KEYS)))
        value = [part for key, part in value.items() if fold_key(key) not in (*STRATEGY_KEYS, "user")]
    for part in value:
        yield from labels(part, depth + 1)


def known_strategy(raw_label: str, strategies: StrategySet) -> str | None:
    """Returns the strategy of a raw label, or None. A remark in brackets ("Offer Hope (OH)") is ignored unless it is another strategy."""
    strategy = strategies.find(raw_label)
    remark = len(raw_label) <= MAX_LABEL_LENGTH and re.fullmatch(
        r"(.*[^\s(\[])\s*[(\[]([^()\[\]]*)[)\]]\W*", raw_label, re.DOTALL
    )
    if strategy is None and remark:
        strategy = strategies.find(remark[1])
        if strategies.find(remark[2]) not in (None, strategy):
            return None
    return strategy


def supporter_turn(words: str, raw_label: str, strategies: StrategySet) -> Turn:
    """Returns a supporter turn with the strategy of a raw label. Raises Rejected if it has no words or no known strategy."""
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
    """Returns alternating turns, with consecutive turns of one speaker merged.

    Merged supporter turns have the last strategy that is not Others, since the seeker's answer follows it.
    """
    merged = []
    for speaker, group in groupby(turns, key=lambda turn: turn.speaker):
        group = list(group)
        names = [turn.strategy for turn in group if turn.strategy]
        strategy = next((name for name in reversed(names) if name != OTHERS), names[-1] if names else None)
        merged.append(Turn(speaker, " ".join(turn.text for turn in group), strategy))
    return tuple(merged)


def dialogue(scene: str, description: str, turns: Iterable[Turn], fewest: int = 2) -> Dialogue:
    """Returns a dialogue of the turns, without an id.

    Raises Rejected if it has no seeker turn, or fewer than `fewest` supporter turns with a known strategy after one.
    """
    result = Dialogue("", scene, description, merge(turns))
    if not any(turn.speaker == SEEKER for turn in result.turns):
        raise Rejected(Reason.NO_SEEKER)
    if sum(result.turns[index].strategy is not None for index in result.supporter_turns()) < fewest:
        raise Rejected(Reason.TOO_SHORT)
    return result


def collect(
    records: Sequence[object], prefix: str, strategies: StrategySet, dialogue_key: str, parse: Callable[[dict, Notes], Dialogue]
) -> Corpus:
    """Returns the corpus of all records that `parse` accepts, with ids "<prefix>-<index in the file>".

    Records that it rejects are listed by reason, and its notes on the others are added up. `dialogue_key`: the key of a record's dialogue.
    """
    dialogues, rejected, parts, unknown = [], {}, Counter(), Counter()
    for index, record in enumerate(records):
        name, notes = f"{prefix}-{index:04d}", Notes()
        try:
            if not isinstance(record, dict):
                raise Rejected(Reason.NOT_A_RECORD)
            parsed = parse(record, notes)
        except Rejected as fault:
            reason = notes.fault if notes.fault and fault.reason in _TOO_FEW_TURNS else fault.reason
            rejected.setdefault(reason.value, []).append(name)
        else:
            parts.update(notes.parts)
            dialogues.append(Dialogue(name, parsed.scene, parsed.description, parsed.turns))
        unknown.update(unknown_labels([*labels(record), *notes.labels], strategies))
    missing = "" if dialogues else missing_key(records, dialogue_key)
    return Corpus(tuple(dialogues), rejected, parts, named(unknown, strategies), missing=missing)


def unknown_labels(labels: Iterable[str], strategies: StrategySet) -> list[str]:
    """Returns the labels that map to no strategy of the set and are not Others."""
    return [name for name in labels if known_strategy(name, strategies) is None and not _means_others(name)]


def named(unknown: Mapping[str, int], strategies: StrategySet) -> tuple[UnknownLabel, ...]:
    """Returns the unknown labels with their counts and the most similar known labels, the most frequent first."""
    labels = {name.lower(): name for name in (*strategies.names, *strategies.aliases)}

    def nearest(label: str) -> str | None:
        longer = [name for name in labels if label.lower() in name]
        near = [*get_close_matches(label.lower(), labels, n=1, cutoff=MIN_LABEL_SIMILARITY), *longer]
        return labels[near[0]] if near else None

    ordered = sorted(unknown.items(), key=lambda entry: (-entry[1], entry[0]))
    return tuple(UnknownLabel(label, count, nearest(label)) for label, count in ordered)


def missing_key(records: Sequence[object], dialogue_key: str) -> str:
    """Returns a description of the key that all records lack and of what they seem to be, "" if any record has the key."""
    objects = [record for record in records if isinstance(record, dict)]
    if not objects or any(values(record, {fold_key(key) for key in dialogue_key.split(" or ")}) for record in objects):
        return ""
    keys = list(dict.fromkeys(key for record in objects[:100] for key in record))
    form = form_of(keys)
    return f"no record has the key {dialogue_key}, the first have {', '.join(keys[:6])}" + (f": {form}" if form else "")
