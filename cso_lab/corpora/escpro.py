"""ESC-Pro as the paper's authors publish it: expanded dialogues whose supporter turns carry what is dispreferred in their place."""

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
"""By the place of a supporter turn in its dialogue: what is dispreferred there."""


@dataclass(frozen=True)
class Expanded(Corpus):
    """Dialogues that are expanded already: several of them grew from one seed. `negatives`: by dialogue id."""

    negatives: Mapping[str, Negatives] = field(default_factory=dict)

    def split(self, test_share: float, seed: int) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
        """As `Corpus.split`, by seeds: all that grew from one are on one side. Of a seed for testing only the first dialogue is a test
        dialogue, since the others repeat its turns."""
        train, test = split(self.for_testing(), test_share, seed)
        seeds = {self.seed_of(dialogue) for dialogue in train}
        return tuple(dialogue for dialogue in self.dialogues if self.seed_of(dialogue) in seeds), test

    def seed_of(self, dialogue: Dialogue) -> tuple:
        return opening(dialogue)

    def for_testing(self) -> tuple[Dialogue, ...]:
        """The first dialogue of every seed."""
        firsts = {opening(dialogue): dialogue for dialogue in reversed(self.dialogues)}
        return tuple(dialogue for dialogue in self.dialogues if firsts[opening(dialogue)] is dialogue)


def opening(dialogue: Dialogue) -> tuple:
    """What all dialogues that grew from one seed have in common: the setting, and the turns up to the seeker's first."""
    first = next(place for place, turn in enumerate(dialogue.turns) if turn.speaker == SEEKER)
    return dialogue.scene, dialogue.description, dialogue.turns[: first + 1]


def read_escpro(path: Path, strategies: StrategySet, prefix: str = "escpro") -> Expanded:
    """Read {scene, description, messages: [{role: user, content}, {role: assistant, content, strategy, negative: [...]}]} records, or
    pairs {messages or prompt, chosen, rejected}, which are put together again: the pairs along one dialogue become one.

    `negative` lists {content, strategy}. In a pair, `chosen` and `rejected` are such objects or "(Strategy) text", and so are the
    assistant's messages; `prompt` may be the text of the history. Of a record as little is left out as possible: a dispreferred reply that
    cannot be read; a supporter turn of no known strategy stays in the history alone. Raises UserError if the file cannot be read.
    """
    records = read_records(path)
    if not is_pairs(records):
        return _expanded(records, strategies, prefix, fewest=2)
    whole, unusable, unknown = dialogues_of_pairs(records, strategies, prefix)
    # A pair is worth training on wherever it stands, so one supporter turn is enough.
    corpus = _expanded(whole, strategies, prefix, fewest=1)
    return replace(corpus, rejected=unusable, unknown=unknown, records=len(records), missing="")


def _expanded(records: Sequence, strategies: StrategySet, prefix: str, fewest: int) -> Expanded:
    found: list[Negatives] = []

    def parse(record: dict, notes: Notes) -> Dialogue:
        messages = listed(next(iter(values(record, HISTORY)), None))
        if not messages:
            raise Rejected(Reason.NO_CONTENT)
        turns, negatives = _turns(messages, strategies, notes)
        made = dialogue(text(values(record, {"scene"})), text(values(record, {"description"})), turns, fewest)
        found.append(negatives)
        return made

    corpus = collect(records, prefix, strategies, "messages or chosen", parse)
    negatives = {made.id: of for made, of in zip(corpus.dialogues, found, strict=True)}
    return Expanded(**vars(corpus), negatives=negatives)


def _turns(messages: Sequence, strategies: StrategySet, notes: Notes) -> tuple[list[Turn], dict[int, tuple[Turn, ...]]]:
    """The turns of a record, alternating, and what is dispreferred in place of which."""
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
            # They were dispreferred in place of one turn, and not of both.
            notes.leave_out_negatives("beside merged supporter turns", len(negatives[len(turns) - 1]) + len(dispreferred))
            negatives[len(turns) - 1] = ()
    return turns, negatives


def _choice(message: Mapping, strategies: StrategySet, notes: Notes) -> tuple[Turn | None, tuple[Turn, ...]]:
    """A supporter turn and what is dispreferred in its place; without its strategy where that is not known, and None without words."""
    entries = [entry for value in values(message, {"negative", "negatives"}) for entry in listed(value)]
    try:
        turn = reply(message, strategies)
    except Rejected as fault:
        notes.leave_out_negatives(f"beside {fault.reason}", len(entries))
        if fault.reason == Reason.NO_TEXT:
            notes.leave_out_turn(fault.reason)
            return None, ()
        notes.keep_without_strategy(fault.reason)
        notes.labels += _not_under_a_key(message, fault)
        return spoken(message, strategies), ()
    dispreferred = dict.fromkeys(_readable(entries, strategies, notes))
    if turn in dispreferred:
        notes.leave_out_negatives("the same as what is preferred")
    return turn, tuple(negative for negative in dispreferred if negative != turn)


def _not_under_a_key(value: object, fault: Rejected) -> list[str]:
    """The label that stood before the text in brackets; those under a key are counted with the record's."""
    return [fault.label] if fault.label and not label(value) else []


def _readable(entries: Sequence, strategies: StrategySet, notes: Notes) -> Iterator[Turn]:
    for entry in entries:
        try:
            yield reply(entry, strategies)
        except Rejected as fault:
            notes.leave_out_negatives(fault.reason)
            notes.labels += _not_under_a_key(entry, fault)
