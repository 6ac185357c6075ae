"""Reads raw ExTES files (Zheng et al., 2024), with the filtering and the map of 15 labels to 8 strategies of appendix D."""

from collections.abc import Iterator
from pathlib import Path

from cso_lab.core.records import SEEKER, Dialogue, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.corpora.corpus import Corpus, Reason
from cso_lab.corpora.formats import fold_key, read_records, values
from cso_lab.corpora.raw import Notes, Rejected, collect, dialogue, label, supporter_turn, text


def read_extes(path: Path, strategies: StrategySet, prefix: str = "extes") -> Corpus:
    """Returns the corpus of {scene, description, content: [{"User": ...} or {"AI": ..., "AI Strategy": ...}, ...]} records.

    Case, blanks and underscores of keys and labels do not matter. A turn without words is skipped; an entry with words of neither speaker
    makes the record unusable. Ids begin with `prefix`. Raises UserError if the file cannot be read.
    """

    def parse(record: dict, notes: Notes) -> Dialogue:
        contents = [content for content in values(record, {"content"}) if isinstance(content, list) and content]
        if not contents:
            raise Rejected(Reason.NO_CONTENT)
        turns = _turns(contents[0], strategies, notes)
        return dialogue(text(values(record, {"scene"})), text(values(record, {"description"})), turns)

    return collect(read_records(path), prefix, strategies, "content", parse)


def _turns(content: list, strategies: StrategySet, notes: Notes) -> Iterator[Turn]:
    """Yields the turns in order. In an entry with both speakers, the one who did not have the previous turn comes first."""
    previous = None
    for entry in content:
        for turn in _entry_turns(entry, strategies, notes, supporter_first=previous == SEEKER):
            previous = turn.speaker
            yield turn


def _entry_turns(entry: object, strategies: StrategySet, notes: Notes, supporter_first: bool) -> list[Turn]:
    """Returns the zero, one or two turns of one entry of `content`. Raises Rejected if it cannot be used."""
    fields = entry if isinstance(entry, dict) else {}
    users, supporters = values(fields, {"user"}), values(fields, {"ai"})
    if not users and not supporters:
        if text(list(entry.values()) if fields else entry) or label(entry):
            raise Rejected(Reason.NO_SPEAKER)
        return []
    turns = [Turn(SEEKER, text(users))] if text(users) else []
    strategy = label({key: value for key, value in fields.items() if fold_key(key) != "user"})
    if text(supporters):
        turns.append(supporter_turn(text(supporters), strategy, strategies))
    elif strategy:
        notes.leave_out_turn(Reason.NO_TEXT)
    return turns[::-1] if supporter_first else turns
