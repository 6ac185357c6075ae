"""Joins preference pairs to the dialogues that they were taken from.

Pairs are ESC-Pro's {messages, chosen, reject}, TRL's {prompt, chosen, rejected}, whose sides may repeat the prompt or replace it, and
those of this project's own pairs.jsonl.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.corpora.corpus import Reason, UnknownLabel
from cso_lab.corpora.formats import values
from cso_lab.corpora.messages import HISTORY, is_transcript, messages_in, reply, role_of, spoken_turns
from cso_lab.corpora.raw import Rejected, named, text, unknown_labels

_CHOSEN, _REJECTED = frozenset({"chosen"}), frozenset({"reject", "rejected"})


@dataclass
class _Turn:
    """A chosen turn with its history, and the turns that pairs reject in its place, in their order."""

    history: tuple[Turn, ...]
    chosen: Turn
    setting: dict[str, str]
    rejected: dict[Turn, None] = field(default_factory=dict)


def is_pairs(records: Sequence) -> bool:
    """Returns whether any record is a preference pair."""
    return any(isinstance(record, dict) and _first(record, _CHOSEN) is not None for record in records)


def dialogues_of_pairs(
    records: Sequence, strategies: StrategySet, prefix: str
) -> tuple[list[dict], dict[str, list[str]], tuple[UnknownLabel, ...]]:
    """Returns (records of dialogues, {reason: ids of the pairs left out}, unknown labels).

    A dialogue is a chosen turn with its history, unless a longer history contains it. The turns that pairs reject after a part of its
    history become the negatives of the next turn.
    """
    pairs: dict[tuple, _Turn] = {}
    unusable: dict[str, list[str]] = {}
    unknown: Counter[str] = Counter()
    for index, record in enumerate(records):
        try:
            if not isinstance(record, dict):
                raise Rejected(Reason.NOT_A_RECORD)
            history, chosen, rejected = _pair(record, strategies)
        except Rejected as fault:
            unusable.setdefault(fault.reason.value, []).append(f"{prefix}-pair-{index:04d}")
            unknown.update(unknown_labels(filter(None, [fault.label]), strategies))
            continue
        setting = {key: text(values(record, {key})) for key in ("scene", "description")}
        pair = pairs.setdefault(_without_strategies((*history, chosen)), _Turn(history, chosen, setting))
        pair.rejected[rejected] = None
    return list(_dialogue_records(pairs)), unusable, named(unknown, strategies)


def _pair(record: Mapping, strategies: StrategySet) -> tuple[tuple[Turn, ...], Turn, Turn]:
    """Returns (history, chosen, rejected) of one record. Raises Rejected if it is no usable pair."""
    sides = [_first(record, keys) for keys in (_CHOSEN, _REJECTED)]
    if any(side in (None, "", [], {}) for side in sides):
        raise Rejected(Reason.NO_CONTENT)
    sides = [_side(side) for side in sides]
    prompt = _first(record, frozenset({"prompt"})) or _first(record, HISTORY)
    if prompt is None:  # the sides contain it
        messages = sides[0][:-1]
        if messages != sides[1][:-1]:
            raise Rejected(Reason.NOT_ONE_REPLY)
    else:
        messages = messages_in(prompt)
    history = spoken_turns(messages, strategies)
    if not history or history[-1].speaker != SEEKER:
        raise Rejected(Reason.NO_SEEKER)
    chosen, rejected = (_reply(side, history, strategies) for side in sides)
    return history, chosen, rejected


def _first(record: Mapping, keys: frozenset[str]) -> object:
    return next((value for value in values(record, keys) if value is not None), None)


def _side(value: object) -> list:
    """Returns the messages of one side; a text is a reply unless it is a transcript."""
    if isinstance(value, str) and not is_transcript(value):
        return [{"role": "assistant", "content": value}]
    return messages_in(value)


def _reply(side: Sequence, history: Sequence[Turn], strategies: StrategySet) -> Turn:
    """Returns the reply of a side, which may repeat the history before it. Raises Rejected if the side is not one reply."""
    repeated = _without_strategies(spoken_turns(side[:-1], strategies))
    if repeated not in ((), _without_strategies(history)) or role_of(side[-1]) not in (SUPPORTER, ""):
        raise Rejected(Reason.NOT_ONE_REPLY)
    return reply(side[-1], strategies)


def _without_strategies(turns: Sequence[Turn]) -> tuple:
    """Returns a key of turns, some of which may lack their strategy."""
    return tuple((turn.speaker, turn.text) for turn in turns)


def _dialogue_records(pairs: Mapping[tuple, _Turn]) -> Iterator[dict]:
    """Yields a record as `read_escpro` reads it for every turn that no longer history continues."""
    continued = {key[:end] for key in pairs for end in range(1, len(key))}
    for key, last in pairs.items():
        if key in continued:
            continue
        messages = []
        for index, turn in enumerate([*last.history, last.chosen]):
            pair = pairs.get(key[: index + 1])
            strategy = turn.strategy or (pair.chosen.strategy if pair else None)
            message = {"role": "user" if turn.speaker == SEEKER else "assistant", "content": turn.text}
            if turn.speaker == SUPPORTER:
                negative = [{"content": reply.text, "strategy": reply.strategy} for reply in (pair.rejected if pair else ())]
                message |= {"strategy": strategy, "negative": negative}
            messages.append(message)
        yield last.setting | {"messages": messages}
