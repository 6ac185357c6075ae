"""Conversations for tests: cards, scripted supporters, and conversations written down turn by turn."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cso_lab.conversation.converse import converse
from cso_lab.conversation.records import CUT, Card, Conversation, Exchange
from cso_lab.conversation.seekers import SimulatedSeekers
from cso_lab.core.strategies import EXTES, format_reply

STRATEGIES = EXTES
VALIDATE, PLAN, EMPATHIZE = "Emotional Validation", "Collaborative Planning", "Empathetic Statements"
PERSONAS = ("open", "rambling", "guarded", "hopeless", "irritated", "advice_refusing")
UTTERANCES = (
    "My dog died on Sunday, and the house is so quiet now that I can't stand it.",
    "I keep hearing him at the door, and I cry every time.",
    "I should have taken him to the vet sooner. I can't forgive myself.",
    "What if it was my fault all along?",
    "I don't know how to get through the weekend.",
    "Perhaps I could go for our old walk again.",
)


def card(number: int = 1, persona: str = "open", intensity: float = 7.0) -> Card:
    return Card(f"card-{number}", "Loss", "My dog died.", UTTERANCES, persona, intensity)


def cards(count: int) -> list[Card]:
    return [card(n, PERSONAS[n % len(PERSONAS)], 6.0 + n % 4) for n in range(1, count + 1)]


class Scripted:
    """A supporter whose reply is a function of the conversation; `asked` lists how many conversations each round had."""

    without_words = CUT

    def __init__(self, reply: Callable[[Conversation], str | None], batch_size: int | None = None):
        self._reply, self.batch_size, self.asked = reply, batch_size, []

    def reply(self, conversations: Sequence[Conversation]) -> list[str | None]:
        self.asked.append(len(conversations))
        return [self._reply(conversation) for conversation in conversations]


def in_turn(*strategies: str) -> Callable[[Conversation], str]:
    """Replies in these strategies, one after the other, never in the same words."""

    def reply(conversation: Conversation) -> str:
        turn = len(conversation.exchanges)
        text = f"That sounds like a lot to carry all at once, and I want to understand it better, number {turn} of many."
        return format_reply(strategies[turn % len(strategies)], text)

    return reply


def hold(
    folder: Path, supporter, seekers: Sequence[Card], max_turns: int = 10, threshold: float = 4, reactions=None
) -> list[Conversation]:
    reactions = reactions or SimulatedSeekers(threshold, STRATEGIES.names, seed=0)
    return converse(seekers, supporter, reactions, STRATEGIES, max_turns, folder / "rounds")


def success(conversations: Sequence[Conversation]) -> float:
    return sum(conversation.ending == "relieved" for conversation in conversations) / len(conversations)


def written(
    seeker: int, persona: str, turns: Sequence[tuple], ending: str, start: float = 8.0, scene: str = "Loss", cut_by=None
) -> Conversation:
    """A conversation of (strategy, text, intensity afterwards, scores, kinds of harm)."""
    exchanges = tuple(
        Exchange(strategy, text, text, f"answer {n}", intensity, scores, harm)
        for n, (strategy, text, intensity, scores, harm) in enumerate(turns)
    )
    return Conversation(seeker, Card(f"c{seeker}", scene, "d", ("Hello.",), persona, start), exchanges, ending, cut_by)
