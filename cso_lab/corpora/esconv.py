"""Reads raw ESConv files (Liu et al., 2021): dialogues of crowd workers, labelled with the eight strategies of ESConv."""

from collections.abc import Iterator
from pathlib import Path

from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.corpora.corpus import Corpus, Reason
from cso_lab.corpora.formats import fold_key, read_records, values
from cso_lab.corpora.raw import Notes, Rejected, collect, dialogue, label, supporter_turn, text

# Speakers have different names in different versions of the file.
SPEAKERS = {
    **dict.fromkeys(("seeker", "speaker", "usr", "user"), SEEKER),
    **dict.fromkeys(("supporter", "listener", "sys", "system"), SUPPORTER),
}


def read_esconv(path: Path, strategies: StrategySet, prefix: str = "esconv") -> Corpus:
    """Returns the corpus of {problem_type, emotion_type, situation, dialog: [{speaker, annotation: {strategy}, content}, ...]} records.

    The scene is "problem type (emotion type)", the description the situation. A turn without words is skipped. Ids begin with `prefix`.
    Raises UserError if the file cannot be read.
    """

    def parse(record: dict, notes: Notes) -> Dialogue:
        contents = [content for content in values(record, {"dialog"}) if isinstance(content, list) and content]
        if not contents:
            raise Rejected(Reason.NO_CONTENT)
        problem, emotion = text(values(record, {"problemtype"})), text(values(record, {"emotiontype"}))
        scene = f"{problem} ({emotion})" if problem and emotion else problem or emotion
        return dialogue(scene, text(values(record, {"situation"})), _turns(contents[0], strategies, notes))

    return collect(read_records(path), prefix, strategies, "dialog", parse)


def _turns(content: list, strategies: StrategySet, notes: Notes) -> Iterator[Turn]:
    for entry in content:
        fields = entry if isinstance(entry, dict) else {}
        words = text(values(fields, {"content", "text"})) if fields else text(entry)
        speaker = SPEAKERS.get(fold_key(text(values(fields, {"speaker"}))))
        if speaker == SUPPORTER:
            if words:
                yield supporter_turn(words, label(fields), strategies)
            elif label(fields):
                notes.leave_out_turn(Reason.NO_TEXT)
        elif words:
            if speaker is None:
                raise Rejected(Reason.NO_SPEAKER)
            yield Turn(SEEKER, words)
