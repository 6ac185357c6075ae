"""The records the stages hand on, and how a history becomes a chat prompt."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cso_lab.core.strategies import StrategySet, format_reply

SEEKER, SUPPORTER = "seeker", "supporter"
# Beside a run's predictions: the dialogues they are of, so that the run can be looked at where the corpus is not.
TEST_DIALOGUES = "test_dialogues.jsonl"


@dataclass(frozen=True)
class Turn:
    """One utterance. `strategy` is set on labelled supporter turns and None on the seeker's."""

    speaker: str
    text: str
    strategy: str | None = None


@dataclass(frozen=True)
class Dialogue:
    """One support dialogue with its setting. Turns alternate; it may open with either speaker."""

    id: str
    scene: str
    description: str
    turns: tuple[Turn, ...]

    def supporter_turns(self) -> Iterator[int]:
        """Positions of the supporter turns that follow something the seeker said (an opening greeting is not one)."""
        return (i for i, turn in enumerate(self.turns) if turn.speaker == SUPPORTER and i > 0)


@dataclass(frozen=True)
class SeekerReply:
    """What the seeker said; `text` is None when it only ended the dialogue."""

    text: str | None
    end: bool


Scores = Mapping[str, int]
"""What the judge gives one supporter turn: {"E": ..., "I": ..., "H": ..., "S": ...}, integers 0 to 4 (Table 13)."""


@dataclass(frozen=True)
class PreferencePair:
    """A preferred and a dispreferred (strategy, response) after the same history: one element of D in eq. 6. Q is None where nothing
    was searched."""

    dialogue: str
    history: tuple[Turn, ...]
    chosen: Turn
    rejected: Turn
    q_chosen: float | None
    q_rejected: float | None


@dataclass(frozen=True)
class Prediction:
    """What a model said at one test turn. `strategy` is None when `raw` does not open with a known strategy."""

    dialogue: str
    turn: int
    gold_strategy: str
    gold_response: str
    strategy: str | None
    response: str
    raw: str


def system_prompt(strategies: StrategySet) -> str:
    """The instruction that stands before every dialogue in training, generation and judging alike."""
    lines = "\n".join(f"- {name}: {what}" for name, what in strategies.descriptions.items())
    return (
        "You are a caring supporter in a conversation with someone who is having a hard time. "
        "Choose the one strategy that helps most now, then reply in one to three short spoken sentences.\n"
        f"Strategies:\n{lines}\n"
        "Form of every reply: (Strategy) text"
    )


def supporter_message(turn: Turn) -> dict[str, str]:
    """A supporter turn as a chat message, "(Strategy) text" where it is labelled."""
    content = format_reply(turn.strategy, turn.text) if turn.strategy else turn.text
    return {"role": "assistant", "content": content}


def prompt_messages(history: Iterable[Turn], strategies: StrategySet) -> list[dict[str, str]]:
    """System prompt and history as chat messages, the seeker being the user."""
    turns = (
        supporter_message(turn) if turn.speaker == SUPPORTER else {"role": "user", "content": turn.text} for turn in history
    )
    return [{"role": "system", "content": system_prompt(strategies)}, *turns]
