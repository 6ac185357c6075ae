"""The dialogues of a raw file, the records that were left out, and the split into dialogues for training, testing and the search."""

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

# Longer labels are cut when they are printed: some files have whole texts as labels.
MAX_LABEL_SHOWN = 60
# A warning is printed if a larger fraction of the records is left out.
WARN_FRACTION = 0.1


class Reason(StrEnum):
    """Why a record, or a part of one, is left out. A record has one reason, the first in the order of its turns."""

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
    """A label of a raw file that maps to no strategy, its count, and the most similar known label, or None if none is similar."""

    label: str
    count: int
    nearest: str | None

    def __str__(self) -> str:
        return f"{self.label[:MAX_LABEL_SHOWN]!r} {self.count}" + (f" (nearest: {self.nearest!r})" if self.nearest else "")


@dataclass(frozen=True)
class Corpus:
    """The usable dialogues of a raw file in file order, and {reason: ids of the records left out}.

    `parts`: counts of what was left out of usable dialogues or corrected in them. `unknown`: labels that map to no strategy. `records`:
    the number of records in the file, None if each dialogue is one. `missing`: a description of the key that all records lack, if no
    record is a dialogue. `source`: the file.
    """

    dialogues: tuple[Dialogue, ...]
    rejected: Mapping[str, list[str]]
    parts: Mapping[str, int] = field(default_factory=dict)
    unknown: tuple[UnknownLabel, ...] = ()
    records: int | None = None
    missing: str = ""
    source: str = ""

    def rejects(self) -> dict:
        """Returns a summary for JSON, in which `records` and `usable` count records of the file.

        {source, records, usable, dialogues, rejected: {reason: {count, ids}}, parts: {part: count}, unknown_labels: {label: {count,
        nearest}}}
        """
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
        """Returns a key of a dialogue's origin; dialogues of the same origin go to the same side of a split.

        It has the setting and the first two turns only, so that correcting a later turn of a corpus does not change the split.
        """
        return dialogue.scene, dialogue.description, tuple(turn.text for turn in dialogue.turns[:2])

    def for_testing(self) -> tuple[Dialogue, ...]:
        """Returns the test dialogues if the whole corpus is held out."""
        return self.dialogues

    def split(self, test_share: float, seed: int) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
        """Returns (train, test), see `split`."""
        return split(self.dialogues, test_share, seed)

    def __str__(self) -> str:
        """Returns the number of usable records, and a line for each reason, each correction and the unknown labels."""
        summary = self.rejects()
        turns = sum(len(dialogue.turns) for dialogue in self.dialogues)
        usable, count = f"{summary['usable']} of {summary['records']} records are usable", summary["dialogues"]
        lines = [
            f"{usable} dialogues ({turns} turns)"
            if count == summary["usable"]
            else f"{usable}: {count} dialogues ({turns} turns)"
        ]
        for reason, entry in summary["rejected"].items():
            ids = ", ".join(entry["ids"][:3]) + (", ..." if entry["count"] > 3 else "")
            lines.append(f"  left out {entry['count']}: {reason} ({ids})")
        lines += [f"  in usable dialogues, {count} {part}" for part, count in self.parts.items()]
        if self.unknown:
            lines.append(f"  labels of no strategy: {self.unknown_labels()}")
        return "\n".join(lines)

    def unknown_labels(self) -> str:
        """Returns the most frequent labels that map to no strategy, as text."""
        return ", ".join(map(str, self.unknown[:10])) + (
            f" and {len(self.unknown) - 10} others" if len(self.unknown) > 10 else ""
        )


def _rank(dialogue: Dialogue, seed: int) -> str:
    opening = [turn.text for turn in dialogue.turns[:2]]
    return hashlib.sha256(json.dumps([seed, dialogue.scene, dialogue.description, opening]).encode()).hexdigest()


def split(dialogues: Sequence[Dialogue], test_share: float, seed: int = 0) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
    """Returns (train, test), both in corpus order: the round(test_share * n) dialogues of the lowest rank are the test set.

    A dialogue's rank is a hash of the seed, its setting and its opening, so it does not depend on the other dialogues,
    on their order or on the machine. `test_share` is in [0, 1); 0 means no test set.
    """
    ranks = [_rank(dialogue, seed) for dialogue in dialogues]
    # Copies of a dialogue have the same rank and go to the same side: a training dialogue is never also a test dialogue.
    test = set(sorted(ranks)[: round(test_share * len(dialogues))])
    return (
        tuple(dialogue for dialogue, rank in zip(dialogues, ranks, strict=True) if rank not in test),
        tuple(dialogue for dialogue, rank in zip(dialogues, ranks, strict=True) if rank in test),
    )


def part_of(part: str) -> tuple[int, int]:
    """Returns (i, n) for a valid `data.shard`, "i/n" with 1 <= i <= n."""
    index, parts = map(int, part.split("/"))
    return index, parts


def shard(dialogues: Sequence[Dialogue], part: str) -> tuple[Dialogue, ...]:
    """Returns the i-th of n parts ("i/n", i from 1): dialogues i, i+n, i+2n, ...; the n parts are disjoint and cover all."""
    index, parts = part_of(part)
    return tuple(dialogues[index - 1 :: parts])


def seeds(train: Sequence[Dialogue], seed_dialogues: int | None, part: str = "1/1") -> tuple[Dialogue, ...]:
    """Returns the dialogues that the search expands: a part of the first `seed_dialogues` of the training set (None: all)."""
    return shard(train[:seed_dialogues], part)


def load(cfg_data: Mapping) -> Corpus:
    """Returns the corpus at `data.path`, read by `data.reader` with the strategies `data.strategies` and the labels `data.labels`.

    Raises UserError if the file is missing, cannot be read, or has no usable dialogue. Other records that are left out are listed in
    `Corpus.rejected`, and a warning is printed if there are many.
    """
    source = data_source(cfg_data)
    if source.within:
        test_files = () if test_source(cfg_data) else source.others
        hint = "; ".join(f"{name} gives its dialogues as the test dialogues" for name in test_files)
        _print_once(f"data.path={cfg_data.get('path')}: reading {source}" + (f"; data.test_path={hint}" if hint else ""))
    return _read(cfg_data, "data.path", source)


def divide(cfg_data: Mapping, measured: str = "test") -> tuple[Corpus, tuple[Dialogue, ...], tuple[Dialogue, ...]]:
    """Returns (corpus, training dialogues, dialogues that are measured on).

    `measured` says which these are: "test" or "validation". The test dialogues are those of `data.test_path` or, if that is not given,
    the fraction `data.test_share` of the corpus. Of the others, the fraction `data.validation_share` are the validation dialogues, and
    the rest the training dialogues. Raises UserError if no training dialogue is left.
    """
    corpus = load(cfg_data)
    train, test = _train_and_test(corpus, cfg_data)
    share = cfg_data.get("validation_share", 0)
    train, validation = replace(corpus, dialogues=train).split(share, cfg_data["split_seed"]) if share else (train, ())
    return corpus, train, validation if measured == "validation" else test


def _train_and_test(corpus: Corpus, cfg_data: Mapping) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
    """Returns the dialogues that are not tested on, and those that are.

    Dialogues of the same origin as one of `data.test_path` are in neither.
    """
    held_out = test_source(cfg_data)
    if held_out is None:
        return corpus.split(cfg_data["test_share"], cfg_data["split_seed"])
    if held_out.within:
        _print_once(f"data.test_path={cfg_data.get('test_path')}: reading {held_out}")
    test_corpus = _read(cfg_data, "data.test_path", held_out)
    # The prefix keeps ids apart from those of the training dialogues, which are numbered in the same way.
    test = tuple(replace(dialogue, id=f"test-{dialogue.id}") for dialogue in test_corpus.for_testing())
    origins = {test_corpus.seed_of(dialogue) for dialogue in test_corpus.dialogues}
    train = tuple(dialogue for dialogue in corpus.dialogues if corpus.seed_of(dialogue) not in origins)
    if overlap := len(corpus.dialogues) - len(train):
        message = f"{overlap} of {len(corpus.dialogues)} dialogues of data.path open as one of data.test_path does"
        if not train:
            raise UserError(f"{message}: none is left to train on; give another data.test_path=FILE")
        _print_once(f"warning: {message}, and are not trained on", sys.stderr)
    return train, test


def _read(cfg_data: Mapping, key: str, source: Source) -> Corpus:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from cso_lab.config.error_messages import explain

    strategies = corpus_strategies(cfg_data)
    # Partial, because Hydra would convert a StrategySet that is given as an argument into a config node.
    try:
        reader = instantiate(cfg_data["reader"], _partial_=True)
    except InstantiationException as error:
        # The key in the message is relative to `cfg_data`, which may have no parent node.
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
    summary = corpus.rejects()
    lost, records = summary["records"] - summary["usable"], summary["records"]
    if lost > WARN_FRACTION * records:
        hint = "; data.labels={LABEL: STRATEGY} says what a label means" if corpus.unknown else ""
        _print_once(f"WARNING: {lost} of {records} records of {key} are left out ({reasons}){hint}", sys.stderr)


@cache
def _print_once(text: str, file=None) -> None:
    """Prints a text once in this process, though several stages of a run and several cells of a sweep read the corpus."""
    print(text, file=file or sys.stdout, flush=True)


def corpus_strategies(cfg_data: Mapping) -> StrategySet:
    """Returns the strategy set of `data.strategies` with the additional labels of `data.labels`.

    Raises UserError if the set is unknown or a label is mapped to something else than a strategy.
    """
    strategies = strategy_set(cfg_data.get("strategies"))
    labels = cfg_data.get("labels") or {}
    if not isinstance(labels, Mapping):
        raise UserError(f"data.labels={labels}: must be null, or labels with what they mean, such as {{Greeting: Others}}")
    aliases = {str(label): strategies.find(str(meaning)) for label, meaning in labels.items()}
    for label, strategy in aliases.items():
        if strategy is None:
            raise UserError(f"data.labels={{{label}: ...}}: {unknown('strategy', labels[label], strategies.names)}")
    return replace(strategies, aliases={**strategies.aliases, **aliases})
