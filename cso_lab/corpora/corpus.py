"""What a reader makes of a raw file, and which of its dialogues are for training, for testing and for the search."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache

from cso_lab.core.errors import UserError, unknown
from cso_lab.core.records import Dialogue
from cso_lab.core.strategies import StrategySet, strategy_set
from cso_lab.corpora.source import Source, data_source, test_source

# So much of a label is shown: some files hold whole texts in their place.
SHOWN = 60
# A corpus that loses a larger share of its records is worth a warning.
MUCH = 0.1


class Reason(StrEnum):
    """Why a record, or a part of one, was left out. A record has one reason: the first met, its turns read in order."""

    NOT_A_RECORD = "not a record"
    NO_CONTENT = "no content"
    NO_SPEAKER = "a turn without a speaker"
    NO_TEXT = "a supporter turn with a strategy but without text"
    NO_STRATEGY = "a supporter turn without a strategy"
    OTHERS = "a supporter turn labelled Others"
    UNKNOWN_STRATEGY = "a supporter turn with an unknown strategy"
    NO_SEEKER = "no seeker turn"
    TOO_SHORT = "fewer than 2 supporter turns after a seeker turn"
    UNCLEAR_PROMPT = "a prompt in which it is not clear who says what"
    NOT_ONE_REPLY = "a preferred or dispreferred side that is not one reply"


@dataclass(frozen=True)
class UnknownLabel:
    """A strategy label of a raw file that means no strategy, how often it is there, and the known label that is nearest, if one is near."""

    label: str
    count: int
    nearest: str | None

    def __str__(self) -> str:
        return f"{self.label[:SHOWN]!r} {self.count}" + (f" (nearest: {self.nearest!r})" if self.nearest else "")


@dataclass(frozen=True)
class Corpus:
    """The usable dialogues of a raw file in file order, and the ids of the rejected records under their reason.

    `parts`: what was left out of usable dialogues or mended in them, counted. `unknown`: the labels that mean no strategy. `records`: how
    many the file holds, None if a dialogue is one. `missing`: where no record is a dialogue, the key that all lack. `source`: the file.
    """

    dialogues: tuple[Dialogue, ...]
    rejected: Mapping[str, list[str]]
    parts: Mapping[str, int] = field(default_factory=dict)
    unknown: tuple[UnknownLabel, ...] = ()
    records: int | None = None
    missing: str = ""
    source: str = ""

    def rejects(self) -> dict:
        """The account of the reading as plain JSON: {source, records, usable, dialogues, rejected: {reason: {count, ids}}, parts: {what:
        count}, unknown_labels: {label: {count, nearest}}}. `records` and `usable` count records of the file."""
        rejected = sum(map(len, self.rejected.values()))
        records = len(self.dialogues) + rejected if self.records is None else self.records
        return {
            "source": self.source,
            "records": records,
            "usable": records - rejected,
            "dialogues": len(self.dialogues),
            "rejected": {str(reason): {"count": len(ids), "ids": list(ids)} for reason, ids in self.rejected.items()},
            "parts": dict(self.parts),
            "unknown_labels": {entry.label: {"count": entry.count, "nearest": entry.nearest} for entry in self.unknown},
        }

    def seed_of(self, dialogue: Dialogue) -> tuple:
        """What tells a dialogue's origin: dialogues of one origin are on one side of a split.

        Only what a dialogue opens with: mending a later turn of a corpus leaves the split as it was.
        """
        return dialogue.scene, dialogue.description, tuple(turn.text for turn in dialogue.turns[:2])

    def for_testing(self) -> tuple[Dialogue, ...]:
        """The dialogues to test on where all are held out."""
        return self.dialogues

    def split(self, test_share: float, seed: int) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
        """(train, test), see `split`."""
        return split(self.dialogues, test_share, seed)

    def __str__(self) -> str:
        """How many records are usable, and one line a reason for the others, for what was mended and for unknown labels."""
        account = self.rejects()
        turns = sum(len(dialogue.turns) for dialogue in self.dialogues)
        usable, count = f"{account['usable']} of {account['records']} records are usable", account["dialogues"]
        lines = [
            f"{usable} dialogues ({turns} turns)"
            if count == account["usable"]
            else f"{usable}: {count} dialogues ({turns} turns)"
        ]
        for reason, entry in account["rejected"].items():
            shown = ", ".join(entry["ids"][:3]) + (", ..." if entry["count"] > 3 else "")
            lines.append(f"  left out {entry['count']}: {reason} ({shown})")
        lines += [f"  in usable dialogues, {count} {what}" for what, count in self.parts.items()]
        if self.unknown:
            lines.append(f"  labels of no strategy: {self.unknown_labels()}")
        return "\n".join(lines)

    def unknown_labels(self) -> str:
        """The most frequent labels that mean no strategy, for a person to read."""
        return ", ".join(map(str, self.unknown[:10])) + (
            f" and {len(self.unknown) - 10} others" if len(self.unknown) > 10 else ""
        )


def _rank(dialogue: Dialogue, seed: int) -> str:
    opening = [turn.text for turn in dialogue.turns[:2]]
    return hashlib.sha256(json.dumps([seed, dialogue.scene, dialogue.description, opening]).encode()).hexdigest()


def split(dialogues: Sequence[Dialogue], test_share: float, seed: int = 0) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
    """(train, test), both in corpus order: the round(test_share * n) dialogues of the lowest rank are the test set.

    A dialogue's rank is a hash of the seed, its setting and its opening, so it does not depend on the other dialogues,
    on their order or on the machine. `test_share` lies in [0, 1); 0 means no test set.
    """
    ranks = [_rank(dialogue, seed) for dialogue in dialogues]
    # Copies of one dialogue share a rank, and so a side: a training dialogue is never also a test dialogue.
    test = set(sorted(ranks)[: round(test_share * len(dialogues))])
    return (
        tuple(dialogue for dialogue, rank in zip(dialogues, ranks, strict=True) if rank not in test),
        tuple(dialogue for dialogue, rank in zip(dialogues, ranks, strict=True) if rank in test),
    )


def part_of(part: str) -> tuple[int, int]:
    """(i, n) of "i/n", 1 <= i <= n."""
    index, parts = map(int, part.split("/"))
    return index, parts


def shard(dialogues: Sequence[Dialogue], part: str) -> tuple[Dialogue, ...]:
    """The i-th of n parts ("i/n", i from 1): dialogues i, i+n, i+2n, ...; the n parts are disjoint and cover all."""
    index, parts = part_of(part)
    return tuple(dialogues[index - 1 :: parts])


def seeds(train: Sequence[Dialogue], seed_dialogues: int | None, part: str = "1/1") -> tuple[Dialogue, ...]:
    """The dialogues the search expands: the first `seed_dialogues` of the training set (None: all), and of these a part."""
    return shard(train[:seed_dialogues], part)


def load(cfg_data: Mapping) -> Corpus:
    """Read `data.path` with `data.reader` in the strategies of `data.strategies` and the labels of `data.labels`.

    Raises UserError if the file is missing, cannot be read, or holds no usable dialogue. Unusable records are no error:
    `Corpus.rejected` names them, and a warning is printed where they are many.
    """
    source = data_source(cfg_data)
    if source.within:
        offered = "; ".join(f"{name} gives its dialogues as the test dialogues" for name in _offers(source, cfg_data))
        _once(f"data.path={cfg_data.get('path')}: reading {source}" + (f"; data.test_path={offered}" if offered else ""))
    return _read(cfg_data, "data.path", source)


def divide(cfg_data: Mapping) -> tuple[Corpus, tuple[Dialogue, ...], tuple[Dialogue, ...]]:
    """(corpus, training dialogues, test dialogues): the test dialogues are those of `data.test_path` or, where that is not given, the share
    `data.test_share` of the corpus. Whatever shares its origin with a dialogue of `data.test_path` is not trained on."""
    corpus, held_out = load(cfg_data), test_source(cfg_data)
    if held_out is None:
        return corpus, *corpus.split(cfg_data["test_share"], cfg_data["split_seed"])
    if held_out.within:
        _once(f"data.test_path={cfg_data.get('test_path')}: reading {held_out}")
    tested = _read(cfg_data, "data.test_path", held_out)
    # A training dialogue of the other file may have the same number.
    test = tuple(replace(dialogue, id=f"test-{dialogue.id}") for dialogue in tested.for_testing())
    origins = {tested.seed_of(dialogue) for dialogue in tested.dialogues}
    train = tuple(dialogue for dialogue in corpus.dialogues if corpus.seed_of(dialogue) not in origins)
    if left_out := len(corpus.dialogues) - len(train):
        kept = f"{left_out} of {len(corpus.dialogues)} dialogues of data.path open as one of data.test_path does"
        if not train:
            raise UserError(f"{kept}: none is left to train on; give another data.test_path=FILE")
        _once(f"warning: {kept}, and are not trained on", sys.stderr)
    return corpus, train, test


def _offers(source: Source, cfg_data: Mapping) -> tuple[str, ...]:
    return () if test_source(cfg_data) else source.others


def _read(cfg_data: Mapping, key: str, source: Source) -> Corpus:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from cso_lab.config.error_messages import explain

    strategies = corpus_strategies(cfg_data)
    # Partial, because Hydra would turn a StrategySet given as an argument into a config node.
    try:
        reader = instantiate(cfg_data["reader"], _partial_=True)
    except InstantiationException as error:
        # `cfg_data` may stand alone, and then does not know that it is `data`.
        raise UserError(f"data.reader: {str(explain(error)).rpartition('reader: ')[2]}") from error
    corpus = replace(reader(source.path, strategies), source=str(source))
    reasons = "; ".join(f"{len(ids)}: {reason}" for reason, ids in corpus.rejected.items()) or "it holds no record"
    if corpus.missing:
        reasons += f"; {corpus.missing}"
    if corpus.unknown:
        reasons += f"; labels of no strategy: {corpus.unknown_labels()}"
    if not corpus.dialogues:
        settings = f"data={cfg_data.get('name')} and data.strategies={strategies.name}"
        raise UserError(f"{source.path}: no usable dialogue ({reasons}); {settings} must be those of this file")
    _warn_of_losses(key, corpus, reasons)
    return corpus


def _warn_of_losses(key: str, corpus: Corpus, reasons: str) -> None:
    account = corpus.rejects()
    lost, records = account["records"] - account["usable"], account["records"]
    if lost > MUCH * records:
        mapped = "; data.labels={LABEL: STRATEGY} says what a label means" if corpus.unknown else ""
        _once(f"WARNING: {lost} of {records} records of {key} are left out ({reasons}){mapped}", sys.stderr)


@cache
def _once(text: str, file=None) -> None:
    """Print what several stages of a run, and several cells of a sweep, would say again."""
    print(text, file=file or sys.stdout, flush=True)


def corpus_strategies(cfg_data: Mapping) -> StrategySet:
    """The strategies of `data.strategies`, with the labels of `data.labels` beside those that are known. Raises UserError if one of these
    is to mean something else than a strategy."""
    strategies = strategy_set(cfg_data.get("strategies"))
    given = cfg_data.get("labels") or {}
    if not isinstance(given, Mapping):
        raise UserError(f"data.labels={given}: must be null, or labels with what they mean, such as {{Greeting: Others}}")
    meant = {str(label): strategies.find(str(meaning)) for label, meaning in given.items()}
    for label, strategy in meant.items():
        if strategy is None:
            raise UserError(f"data.labels={{{label}: ...}}: {unknown('strategy', given[label], strategies.names)}")
    return replace(strategies, aliases={**strategies.aliases, **meant})
