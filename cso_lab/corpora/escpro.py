"""Reads ESC-Pro as the paper's authors publish it: expanded dialogues whose supporter turns have dispreferred alternatives."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.corpora.corpus import Corpus, Reason, split
from cso_lab.corpora.formats import read_records, values
from cso_lab.corpora.messages import HISTORY, listed, reply, role_of, spoken
from cso_lab.corpora.pairs import dialogues_of_pairs, is_pairs
from cso_lab.corpora.raw import Notes, Rejected, collect, dialogue, label, merge, text

Negatives = Mapping[int, tuple[Turn, ...]]
"""{index of a supporter turn in its dialogue: the turns dispreferred to it}."""


@dataclass(frozen=True)
class Expanded(Corpus):
    """Dialogues that are expanded already, several from one seed dialogue. `negatives`: by dialogue id."""

    negatives: Mapping[str, Negatives] = field(default_factory=dict)

    def split(self, test_share: float, seed: int) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
        """Returns (train, test) as `Corpus.split` does, with all dialogues of one seed on one side.

        Of a seed on the test side only the first dialogue is used, since the others repeat its turns.
        """
        train, test = split(self.for_testing(), test_share, seed)
        seeds = {self.seed_of(dialogue) for dialogue in train}
        return tuple(dialogue for dialogue in self.dialogues if self.seed_of(dialogue) in seeds), test

    def seed_of(self, dialogue: Dialogue) -> tuple:
        """Returns the dialogue's `opening`."""
        return opening(dialogue)

    def for_testing(self) -> tuple[Dialogue, ...]:
        """Returns the first dialogue of every seed."""
        firsts = {opening(dialogue): dialogue for dialogue in reversed(self.dialogues)}
        return tuple(dialogue for dialogue in self.dialogues if firsts[opening(dialogue)] is dialogue)


def opening(dialogue: Dialogue) -> tuple:
    """Returns what all dialogues of one seed have in common: the setting, and the turns up to the seeker's first."""
    first = next(index for index, turn in enumerate(dialogue.turns) if turn.speaker == SEEKER)
    return dialogue.scene, dialogue.description, dialogue.turns[: first + 1]


def read_escpro(path: Path, strategies: StrategySet, prefix: str = "escpro") -> Expanded:
    """Returns the corpus of dialogues with negatives, or of preference pairs, which are joined to dialogues.

    A dialogue is {scene, description, messages: [{role: user, content}, {role: assistant, content, strategy, negative: [{content,
    strategy}]}]}. A pair is {messages or prompt, chosen, rejected}; `chosen`, `rejected` and the assistant's messages are {content,
    strategy} or "(Strategy) text", and `prompt` may be the text of the history. As little as possible is left out of a record: a
    dispreferred reply that cannot be parsed is, while a supporter turn without a known strategy stays in the history.

    Raises UserError if the file cannot be read.
    """
    records = read_records(path)
    if not is_pairs(records):
        return _expanded(records, strategies, prefix, fewest=2)
    whole, unusable, unknown = dialogues_of_pairs(records, strategies, prefix)
    # A pair can be trained on alone, so one supporter turn is enough.
    corpus = _expanded(whole, strategies, prefix, fewest=1)
    return replace(corpus, rejected=unusable, unknown=unknown, records=len(records), missing="")


def _expanded(records: Sequence, strategies: StrategySet, prefix: str, fewest: int) -> Expanded:
    all_negatives: list[Negatives] = []

    def parse(record: dict, notes: Notes) -> Dialogue:
        messages = listed(next(iter(values(record, HISTORY)), None))
        if not messages:
            raise Rejected(Reason.NO_CONTENT)
        turns, negatives = _turns(messages, strategies, notes)
        parsed = dialogue(text(values(record, {"scene"})), text(values(record, {"description"})), turns, fewest)
        all_negatives.append(negatives)
        return parsed

    corpus = collect(records, prefix, strategies, "messages or chosen", parse)
    negatives = {parsed.id: of for parsed, of in zip(corpus.dialogues, all_negatives, strict=True)}
    return Expanded(**vars(corpus), negatives=negatives)


def _turns(messages: Sequence, strategies: StrategySet, notes: Notes) -> tuple[list[Turn], dict[int, tuple[Turn, ...]]]:
    """Returns the alternating turns of a record, and their negatives."""
    turns: list[Turn] = []
    negatives: dict[int, tuple[Turn, ...]] = {}
    for message in messages:
        if role_of(message) != SUPPORTER:
            turn, dispreferred = spoken(message, strategies), ()
        else:
            turn, dispreferred = _choice(message, strategies, notes)
        if turn is None:
            continue
        if not turns or turns[-1].speaker != turn.speaker:
            turns.append(turn)
            if turn.speaker == SUPPORTER:
                negatives[len(turns) - 1] = dispreferred
            continue
        turns[-1:] = merge([turns[-1], turn])
        if turn.speaker == SUPPORTER:
            notes.parts["supporter turns merged with the one before, no seeker turn lying between"] += 1
            # They were dispreferred to one of the two turns, not to the merged one.
            notes.leave_out_negatives("beside merged supporter turns", len(negatives[len(turns) - 1]) + len(dispreferred))
            negatives[len(turns) - 1] = ()
    return turns, negatives


def _choice(message: Mapping, strategies: StrategySet, notes: Notes) -> tuple[Turn | None, tuple[Turn, ...]]:
    """Returns a supporter turn and its negatives; the turn has no strategy if that is not known, and is None if it has no words."""
    entries = [entry for value in values(message, {"negative", "negatives"}) for entry in listed(value)]
    try:
        turn = reply(message, strategies)
    except Rejected as fault:
        notes.leave_out_negatives(f"beside {fault.reason}", len(entries))
        if fault.reason == Reason.NO_TEXT:
            notes.leave_out_turn(fault.reason)
            return None, ()
        notes.keep_without_strategy(fault.reason)
        notes.labels += _label_in_text(message, fault)
        return spoken(message, strategies), ()
    dispreferred = dict.fromkeys(_readable(entries, strategies, notes))
    if turn in dispreferred:
        notes.leave_out_negatives("the same as what is preferred")
    return turn, tuple(negative for negative in dispreferred if negative != turn)


def _label_in_text(value: object, fault: Rejected) -> list[str]:
    """Returns the unknown label if it was in brackets before the text; labels under a key are counted with those of the record."""
    return [fault.label] if fault.label and not label(value) else []


def _readable(entries: Sequence, strategies: StrategySet, notes: Notes) -> Iterator[Turn]:
    """Yields the negatives that can be parsed; the others are noted."""
    for entry in entries:
        try:
            yield reply(entry, strategies)
        except Rejected as fault:
            notes.leave_out_negatives(fault.reason)
            notes.labels += _label_in_text(entry, fault)
