"""ESC-Pro as the paper's authors publish it: expanded dialogues whose supporter turns carry what is dispreferred in their place."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cso_lab.corpora.corpus import Corpus, Reason, split
from cso_lab.corpora.raw import Rejected, collect, dialogue, label, read_records, supporter_turn, text, values
from cso_lab.dialogue import SEEKER, SUPPORTER, Dialogue, Turn
from cso_lab.strategies import StrategySet, parse_reply

_SEEKER, _SUPPORTER, _SYSTEM = ("user", "seeker", "human"), ("assistant", "supporter", "gpt"), ("system",)

Negatives = Mapping[int, tuple[Turn, ...]]
"""By the place of a supporter turn in its dialogue: what is dispreferred there."""


@dataclass(frozen=True)
class Expanded(Corpus):
    """Dialogues that are expanded already: several of them grew from one seed. `negatives`: by dialogue id."""

    negatives: Mapping[str, Negatives] = field(default_factory=dict)

    def split(self, test_share: float, seed: int) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
        """As `Corpus.split`, by seeds: all that grew from one are on one side. Of a seed for testing only the first dialogue is a test
        dialogue, since the others repeat its turns."""
        firsts = {opening(dialogue): dialogue for dialogue in reversed(self.dialogues)}
        train, test = split([d for d in self.dialogues if firsts[opening(d)] is d], test_share, seed)
        seeds = {opening(dialogue) for dialogue in train}
        return tuple(dialogue for dialogue in self.dialogues if opening(dialogue) in seeds), test


def opening(dialogue: Dialogue) -> tuple:
    """What all dialogues that grew from one seed have in common: the setting, and the turns up to the seeker's first."""
    first = next(place for place, turn in enumerate(dialogue.turns) if turn.speaker == SEEKER)
    return dialogue.scene, dialogue.description, dialogue.turns[: first + 1]


def read_escpro(path: Path, strategies: StrategySet, prefix: str = "escpro") -> Expanded:
    """Read {scene, description, messages: [{role: user, content}, {role: assistant, content, strategy, negative: [...]}]} records, or
    pairs {messages, chosen, reject}, which are put together again: the pairs along one dialogue are one record.

    `negative` lists {content, strategy}. In a pair, `chosen` and `reject` are such objects or "(Strategy) text", and so are the
    assistant's messages. A record with a turn that cannot be read is rejected whole. A UserError when the file is missing or no JSON.
    """
    records, unusable = read_records(path), {}
    if any(isinstance(record, dict) and values(record, {"chosen"}) for record in records):
        records, unusable = _dialogues_of_pairs(records, strategies, prefix)
    found: list[Negatives] = []

    def parse(record: dict) -> Dialogue:
        messages = _listed(next(iter(values(record, {"messages"})), None))
        if not messages:
            raise Rejected(Reason.NO_CONTENT)
        turns, negatives = _turns(messages, strategies)
        made = dialogue(text(values(record, {"scene"})), text(values(record, {"description"})), turns)
        found.append(negatives)
        return made

    corpus = collect(records, prefix, parse)
    rejected = {
        reason: [*unusable.get(reason, []), *corpus.rejected.get(reason, [])] for reason in {**unusable, **corpus.rejected}
    }
    negatives = {made.id: of for made, of in zip(corpus.dialogues, found, strict=True)}
    return Expanded(corpus.dialogues, rejected, negatives)


def _turns(
    messages: Sequence, strategies: StrategySet, labelled: bool = True
) -> tuple[list[Turn], dict[int, tuple[Turn, ...]]]:
    """The turns of a record, alternating, and what is dispreferred in place of which. Supporter turns are `labelled`, or may not be."""
    turns: list[Turn] = []
    negatives = {}
    for message in messages:
        turn = _turn(message, strategies, labelled)
        if turn is None:
            continue
        if turns and turns[-1].speaker == turn.speaker:
            if turn.speaker == SUPPORTER:
                raise Rejected(Reason.TWO_SUPPORTERS)
            turns[-1] = Turn(SEEKER, f"{turns[-1].text} {turn.text}")
            continue
        if turn.speaker == SUPPORTER:
            entries = [entry for value in values(message, {"negative", "negatives"}) for entry in _listed(value)]
            replies = dict.fromkeys(_reply(entry, strategies) for entry in entries)
            negatives[len(turns)] = tuple(reply for reply in replies if reply != turn)
        turns.append(turn)
    return turns, negatives


def _listed(value: object) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def _turn(message: object, strategies: StrategySet, labelled: bool) -> Turn | None:
    """One message as a turn; None for an instruction, or when it says nothing."""
    fields = message if isinstance(message, dict) else {}
    role = text(values(fields, {"role", "from"})).lower()
    if role in _SYSTEM:
        return None
    if role in _SUPPORTER:
        return _reply(fields, strategies, labelled)
    words = text(values(fields, {"content", "value"}))
    if words and role not in _SEEKER:
        raise Rejected(Reason.NO_SPEAKER)
    return Turn(SEEKER, words) if words else None


def _reply(value: object, strategies: StrategySet, labelled: bool = True) -> Turn:
    """A supporter's reply: {content, strategy}, or its strategy before the text in brackets."""
    fields = value if isinstance(value, dict) else {"content": value}
    words, name = text(values(fields, {"content", "value"})), label(fields)
    if not name:
        found, words = parse_reply(words, strategies)
        name = found or ""
    if words and not name and not labelled:
        return Turn(SUPPORTER, words)
    return supporter_turn(words, name, strategies)


def _dialogues_of_pairs(records: Sequence, strategies: StrategySet, prefix: str) -> tuple[list[dict], dict[str, list[str]]]:
    """(records of whole dialogues, ids of the pairs that cannot be read under their reason) of {messages, chosen, reject} pairs.

    A dialogue is a chosen turn that no longer history goes on from, with its history; what pairs reject after a part of that history is
    dispreferred in place of its next turn.
    """
    pairs: dict[tuple, _Turn] = {}
    unusable: dict[str, list[str]] = {}
    for index, record in enumerate(records):
        try:
            if not isinstance(record, dict):
                raise Rejected(Reason.NOT_A_RECORD)
            history, _ = _turns(_listed(next(iter(values(record, {"messages"})), None)), strategies, labelled=False)
            if not history or history[-1].speaker != SEEKER:
                raise Rejected(Reason.NO_SEEKER)
            sides = [_listed(next(iter(values(record, keys)), None))[:1] for keys in ({"chosen"}, {"reject", "rejected"})]
            if not all(sides):
                raise Rejected(Reason.NO_CONTENT)
            chosen, rejected = (_reply(side[0], strategies) for side in sides)
        except Rejected as fault:
            unusable.setdefault(fault.reason.value, []).append(f"{prefix}-pair-{index:04d}")
            continue
        setting = {key: text(values(record, {key})) for key in ("scene", "description")}
        pair = pairs.setdefault(_said((*history, chosen)), _Turn(history, chosen, setting))
        pair.rejected[rejected] = None
    return list(_whole(pairs)), unusable


@dataclass
class _Turn:
    """A chosen turn after its history, and what pairs reject in its place, in their order."""

    history: list[Turn]
    chosen: Turn
    setting: dict[str, str]
    rejected: dict[Turn, None] = field(default_factory=dict)


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
