"""Preference pairs put together again to the dialogues that they lie along: ESC-Pro's {messages, chosen, reject}, TRL's {prompt, chosen,
rejected}, whose sides may repeat the prompt or be all there is, and this project's own pairs.jsonl."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.corpora.corpus import Reason, UnknownLabel
from cso_lab.corpora.formats import values
from cso_lab.corpora.messages import HISTORY, is_written_out, messages_in, reply, role_of, spoken_turns
from cso_lab.corpora.raw import Rejected, named, text, unknown_labels

_CHOSEN, _REJECTED = frozenset({"chosen"}), frozenset({"reject", "rejected"})


@dataclass
class _Turn:
    """A chosen turn after its history, and what pairs reject in its place, in their order."""

    history: tuple[Turn, ...]
    chosen: Turn
    setting: dict[str, str]
    rejected: dict[Turn, None] = field(default_factory=dict)


def is_pairs(records: Sequence) -> bool:
    return any(isinstance(record, dict) and _first(record, _CHOSEN) is not None for record in records)


def dialogues_of_pairs(
    records: Sequence, strategies: StrategySet, prefix: str
) -> tuple[list[dict], dict[str, list[str]], tuple[UnknownLabel, ...]]:
    """(records of whole dialogues, ids of the pairs that cannot be read under their reason, labels of no strategy) of pairs.

    A dialogue is a chosen turn that no longer history goes on from, with its history; what pairs reject after a part of that history is
    dispreferred in place of its next turn.
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
        pair = pairs.setdefault(_said((*history, chosen)), _Turn(history, chosen, setting))
        pair.rejected[rejected] = None
    return list(_whole(pairs)), unusable, named(unknown, strategies)


def _pair(record: Mapping, strategies: StrategySet) -> tuple[tuple[Turn, ...], Turn, Turn]:
    """(history, chosen, rejected) of one record."""
    sides = [_first(record, keys) for keys in (_CHOSEN, _REJECTED)]
    if any(side in (None, "", [], {}) for side in sides):
        raise Rejected(Reason.NO_CONTENT)
    sides = [_side(side) for side in sides]
    prompt = _first(record, frozenset({"prompt"})) or _first(record, HISTORY)
    if prompt is None:  # then the sides share it
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
    """The messages of one side: a text is a reply, unless it is a conversation written out."""
    if isinstance(value, str) and not is_written_out(value):
        return [{"role": "assistant", "content": value}]
    return messages_in(value)


def _reply(side: Sequence, history: Sequence[Turn], strategies: StrategySet) -> Turn:
    """The reply of a side, which may repeat the history before it."""
    if _said(spoken_turns(side[:-1], strategies)) not in ((), _said(history)) or role_of(side[-1]) not in (SUPPORTER, ""):
        raise Rejected(Reason.NOT_ONE_REPLY)
    return reply(side[-1], strategies)


def _said(turns: Sequence[Turn]) -> tuple:
    """What turns are known by where some of them may be without their strategy."""
    return tuple((turn.speaker, turn.text) for turn in turns)


def _whole(pairs: Mapping[tuple, _Turn]) -> Iterator[dict]:
    continued = {said[:end] for said in pairs for end in range(1, len(said))}
    for said, last in pairs.items():
        if said in continued:
            continue
        messages = []
        for place, turn in enumerate([*last.history, last.chosen]):
            pair = pairs.get(said[: place + 1])
            strategy = turn.strategy or (pair.chosen.strategy if pair else None)
            message = {"role": "user" if turn.speaker == SEEKER else "assistant", "content": turn.text}
            if turn.speaker == SUPPORTER:
                negative = [{"content": reply.text, "strategy": reply.strategy} for reply in (pair.rejected if pair else ())]
                message |= {"strategy": strategy, "negative": negative}
            messages.append(message)
        yield last.setting | {"messages": messages}
