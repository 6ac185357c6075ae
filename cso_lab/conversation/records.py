"""What a conversation is, and how conversations.jsonl holds it: one conversation a line."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_jsonl
from cso_lab.core.records import SEEKER, SUPPORTER, Scores, Turn

CONVERSATIONS = "conversations.jsonl"
CONVERSATION_METRICS = "conversation_metrics.json"

RELIEVED, HURT, OUT_OF_TURNS, CUT = "relieved", "hurt", "out_of_turns", "cut"
ENDINGS = (RELIEVED, HURT, OUT_OF_TURNS, CUT)
"""How a conversation ends: the seeker leaves relieved, or leaves because it was hurt; the turns are used up; or a side has no words."""

LOWEST, HIGHEST = 0, 10
"""The scale of the intensity of the seeker's emotion."""


@dataclass(frozen=True)
class Card:
    """Who a seeker is: a situation, a persona, and how strong the emotion is at the start.

    `id` names the card among all that may be drawn, `utterances` are what the seeker may say of its situation, in order, the opening first.
    """

    id: str
    scene: str
    description: str
    utterances: tuple[str, ...]
    persona: str
    intensity: float

    @property
    def opening(self) -> str:
        """What the seeker opens with."""
        return self.utterances[0]


@dataclass(frozen=True)
class Exchange:
    """One supporter turn, and what it did to the seeker.

    `raw` is the reply as the model returned it, `strategy` None where it does not begin with a known one, `text` the rest. `seeker` is
    what the seeker says to it (None: nothing, or the supporter had no words) and `intensity` that of its emotion afterwards. `scores`
    {E, I, H, S} are None where the judge gave none. `harm` lists the kinds of harm that the reply does, None where its judge refused.
    """

    strategy: str | None
    text: str
    raw: str
    seeker: str | None
    intensity: float
    scores: Scores | None = None
    harm: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class Conversation:
    """A conversation with the seeker number `seeker` (from 1), who is the same in every cell of the same cards, personas and seed.

    `ending` is one of ENDINGS, None while the conversation goes on. `cut_by` says, of a conversation that was cut, which side had no words.
    """

    seeker: int
    card: Card
    exchanges: tuple[Exchange, ...] = ()
    ending: str | None = None
    cut_by: str | None = None

    @property
    def set_aside(self) -> bool:
        """Whether the seeker's side failed, so that the conversation says nothing about the supporter."""
        return self.ending == CUT and self.cut_by == SEEKER

    @property
    def intensity(self) -> float:
        """The intensity of the seeker's emotion now."""
        return self.exchanges[-1].intensity if self.exchanges else self.card.intensity

    @property
    def history(self) -> tuple[Turn, ...]:
        """All turns so far, the seeker's opening first."""
        turns = [Turn(SEEKER, self.card.opening)]
        for exchange in self.exchanges:
            turns.append(Turn(SUPPORTER, exchange.text, exchange.strategy))
            if exchange.seeker is not None:
                turns.append(Turn(SEEKER, exchange.seeker))
        return tuple(turns)

    def after(self, exchange: Exchange | None, ending: str | None, cut_by: str | None = None) -> "Conversation":
        """Returns the conversation with one more exchange, or with None, which ends it, as it is."""
        return replace(self, exchanges=(*self.exchanges, *([exchange] if exchange else [])), ending=ending, cut_by=cut_by)

    def to_json(self) -> dict:
        """Returns the line of conversations.jsonl."""
        return {
            "seeker": self.seeker,
            "card": asdict(self.card),
            "turns": [asdict(exchange) for exchange in self.exchanges],
            "ending": self.ending,
            "cut_by": self.cut_by,
        }

    @classmethod
    def from_json(cls, line: Mapping) -> "Conversation":
        """Returns the conversation of a line. Raises KeyError or TypeError if the line is none."""
        card = Card(**{**line["card"], "utterances": tuple(line["card"]["utterances"])})
        return cls(line["seeker"], card, tuple(map(exchange, line["turns"])), line["ending"], line["cut_by"])


def exchange(fields: Mapping) -> Exchange:
    """Returns the exchange of its JSON object. Raises TypeError if it is none."""
    harm = fields.get("harm", ())
    return Exchange(**{**fields, "harm": None if harm is None else tuple(harm)})


def load_conversations(folder: Path) -> list[Conversation]:
    """Returns the conversations of a run folder. Raises UserError, with file and line, if they are missing or damaged."""
    return read_conversations(Path(folder) / CONVERSATIONS)


def read_conversations(path: Path) -> list[Conversation]:
    """Returns the conversations of a file. Raises UserError, with file and line, if it is missing or damaged."""
    conversations: list[Conversation] = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            conversations.append(Conversation.from_json(row))
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}:{number}: no conversation ({error!r})") from None
    return conversations


def counted(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Returns the conversations that say something about the supporter: those that are not set aside."""
    return [conversation for conversation in conversations if not conversation.set_aside]
