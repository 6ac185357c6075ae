"""The cards of the seekers: drawn from the test dialogues or a file, with a persona and the intensity of the emotion at the start."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cso_lab.conversation.records import HIGHEST, Card
from cso_lab.core.errors import UserError, unknown
from cso_lab.core.files import read_json, read_jsonl
from cso_lab.core.records import SEEKER, Dialogue


@dataclass(frozen=True)
class Situation:
    """What a card is made of; `persona` and `intensity` are None where they are to be drawn."""

    id: str
    scene: str
    description: str
    utterances: tuple[str, ...]
    persona: str | None = None
    intensity: float | None = None


def draw_cards(settings: Mapping, situations: Sequence[Situation]) -> list[Card]:
    """Returns the cards of `settings["seekers"]` seekers; `settings` is the config node `conversation`.

    Situations come in a shuffled order, all of them before any comes again, and so do personas. Card n depends on the situations, the
    personas, the bounds of the intensity and the seed, and not on how many seekers there are.
    """
    seed, count = settings["seed"], settings["seekers"]
    order = _rounds(list(situations), count, random.Random(f"{seed}/situations"))
    personas = _rounds(list(settings["personas"]), count, random.Random(f"{seed}/personas"))
    cards = []
    for number, (situation, persona) in enumerate(zip(order, personas, strict=True), start=1):
        drawn = random.Random(f"{seed}/{number}").randint(settings["weakest"], settings["strongest"])
        intensity = drawn if situation.intensity is None else situation.intensity
        cards.append(
            Card(
                situation.id,
                situation.scene,
                situation.description,
                situation.utterances,
                situation.persona or persona,
                float(intensity),
            )
        )
    return cards


def of_dialogues(dialogues: Sequence[Dialogue]) -> list[Situation]:
    """Returns the situations of dialogues: what the seeker says there is what it may say."""
    return [
        Situation(
            dialogue.id,
            dialogue.scene,
            dialogue.description,
            tuple(turn.text for turn in dialogue.turns if turn.speaker == SEEKER),
        )
        for dialogue in dialogues
        if any(turn.speaker == SEEKER for turn in dialogue.turns)
    ]


def read_situations(path: Path, personas: Sequence[str], threshold: float) -> list[Situation]:
    """Returns the situations of a file of cards. Raises UserError, with file and card, if one cannot be used."""
    path = Path(path)
    rows = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"conversation.cards={path}: expected a list of cards")
    situations = [_situation(row, f"{path}: card {n}", str(n), personas, threshold) for n, row in enumerate(rows, start=1)]
    ids = [situation.id for situation in situations]
    if twice := [id for id in ids if ids.count(id) > 1]:
        raise UserError(f"conversation.cards={path}: two cards have the id {twice[0]!r}")
    return situations


def _situation(row: object, where: str, number: str, personas: Sequence[str], threshold: float) -> Situation:
    fields = row if isinstance(row, dict) else {}
    known = ("id", "scene", "description", "utterances", "persona", "intensity")
    if strange := [key for key in fields if key not in known]:
        raise UserError(f"{where}: {unknown('key', strange[0], known)}")
    for key in ("scene", "description"):
        if not isinstance(fields.get(key), str) or not fields[key].strip():
            raise UserError(f"{where}: {key} is {json.dumps(fields.get(key))}: expected a text")
    utterances = fields.get("utterances")
    if not isinstance(utterances, list) or not utterances or not all(isinstance(u, str) and u.strip() for u in utterances):
        raise UserError(f"{where}: utterances: expected a list of texts, the opening first")
    persona, intensity = fields.get("persona"), fields.get("intensity")
    if persona is not None and persona not in personas:
        raise UserError(f"{where}: {unknown('persona', persona, personas)}")
    if intensity is not None and (
        isinstance(intensity, bool) or not isinstance(intensity, int | float) or not threshold < intensity <= HIGHEST
    ):
        raise UserError(
            f"{where}: intensity is {json.dumps(intensity)}: expected a number above conversation.threshold={threshold}, at most {HIGHEST}"
        )
    text = tuple(" ".join(utterance.split()) for utterance in utterances)
    return Situation(str(fields.get("id", number)), fields["scene"], fields["description"], text, persona, intensity)


def _rounds(items: list, count: int, rng: random.Random) -> list:
    """Returns `count` of the items: all in a random order, then all in another one, and so on."""
    drawn: list = []
    while len(drawn) < count:
        rng.shuffle(items)
        drawn += items
    return drawn[:count]
