"""The seekers' side: simulated in this process, or played by a language model. Neither is shown more than its own card."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from cso_lab.conversation.players import Players
from cso_lab.conversation.records import HIGHEST, HURT, LOWEST, RELIEVED, Conversation
from cso_lab.core.records import SUPPORTER, Turn
from cso_lab.llm.client import Question
from cso_lab.llm.errors import ParseError
from cso_lab.llm.reply_form import each_schema, integer_schema, text_schema, yes_or_no_schema
from cso_lab.roles.parsing import parse_seeker
from cso_lab.roles.simulated.conversation_seeker import ConversationSeeker, Reaction

SEEKER_PLACEHOLDERS = ("dialogue", "scene", "description", "utterances", "persona", "intensity")
Reply = tuple[str | None, str]
"""Strategy and text of a supporter's turn."""


class Seekers(Protocol):
    """All seekers of a run."""

    def react(self, conversations: Sequence[Conversation], replies: Sequence[Reply]) -> list[Reaction | None]:
        """Returns what each seeker says to the supporter's next turn; None where its player refused to go on."""


class SimulatedSeekers:
    """Simulated seekers; an interrupted conversation is gone through again, which brings a seeker to the same state."""

    def __init__(self, threshold: float, strategies: Sequence[str], seed: int):
        self._threshold, self._strategies, self._seed = threshold, strategies, seed
        self._seekers: dict[int, ConversationSeeker] = {}

    def react(self, conversations: Sequence[Conversation], replies: Sequence[Reply]) -> list[Reaction]:
        """See `Seekers`; none of them refuses."""
        return [self._seeker(each).react(*reply) for each, reply in zip(conversations, replies, strict=True)]

    def _seeker(self, conversation: Conversation) -> ConversationSeeker:
        number, card = conversation.seeker, conversation.card
        if number not in self._seekers:
            seed = f"{self._seed}/{number}/{card.id}"
            seeker = ConversationSeeker(card.persona, card.utterances, card.intensity, self._threshold, self._strategies, seed)
            for exchange in conversation.exchanges:
                seeker.react(exchange.strategy, exchange.text)
            self._seekers[number] = seeker
        return self._seekers[number]


class AskedSeekers:
    """Seekers played by a language model. It rates the intensity of its emotion itself and says whether it leaves."""

    def __init__(self, player: Mapping, players: Players, threshold: float):
        """`player`: the config node `conversation.seeker`."""
        self._player, self._players, self._threshold = player, players, threshold

    def react(self, conversations: Sequence[Conversation], replies: Sequence[Reply]) -> list[Reaction | None]:
        """See `Seekers`."""
        questions = [self.question(each, *reply) for each, reply in zip(conversations, replies, strict=True)]
        answers, _ = self._players.ask(questions, "seekers")
        return [answer and self._reaction(*answer) for answer in answers]

    def question(self, conversation: Conversation, strategy: str | None, text: str) -> Question:
        """Returns the question what the seeker says to this supporter turn."""
        card = conversation.card
        values = {
            "utterances": "\n".join(f"- {utterance}" for utterance in card.utterances),
            "persona": self._player["personas"][card.persona],
            "intensity": f"{conversation.intensity:g}",
        }
        history = (*conversation.history, Turn(SUPPORTER, text, strategy))
        turn = len(conversation.exchanges)
        return self._players.question("seeker", self._player, conversation, turn, history, parse_reaction, values, _SCHEMA)

    def _reaction(self, text: str, intensity: float, leaves: bool) -> Reaction:
        # Who leaves without being relieved has not been helped.
        ending = RELIEVED if intensity <= self._threshold else HURT if leaves else None
        return Reaction(text, intensity, ending)


_SCHEMA = each_schema({"text": text_schema(), "intensity": integer_schema(LOWEST, HIGHEST), "leave": yes_or_no_schema()})
_TEXT = re.compile(r'"text"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)
_INTENSITY = re.compile(r'"intensity"\s*:\s*"?(\d+(?:\.\d+)?)')
_LEAVE = re.compile(r'"leave"\s*:\s*"?(true|false|yes|no)', re.IGNORECASE)


def parse_reaction(reply: str) -> tuple[str, float, bool]:
    """Returns (words, intensity, whether the seeker leaves) of a JSON object, also within prose. Raises ParseError if one is missing."""
    text, intensity, leave = _TEXT.search(reply), _INTENSITY.search(reply), _LEAVE.search(reply)
    if not (text and intensity and leave):
        raise ParseError('expected a JSON object with "text", "intensity" and "leave"')
    if not LOWEST <= float(intensity[1]) <= HIGHEST:
        raise ParseError(f"intensity {intensity[1]} is not from {LOWEST} to {HIGHEST}")
    try:
        words = parse_seeker(json.loads(text[1], strict=False))
    except ValueError:
        raise ParseError("its text is no JSON string") from None
    return words.text or "", float(intensity[1]), words.end or leave[1].lower() in ("true", "yes")
