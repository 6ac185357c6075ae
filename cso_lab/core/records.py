"""The records that stages exchange, and the chat prompt that is made of a dialogue's history."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cso_lab.core.strategies import StrategySet, format_reply

SEEKER, SUPPORTER = "seeker", "supporter"
# File beside a run's predictions with the dialogues they belong to, so that a run can be read on a machine without the corpus.
TEST_DIALOGUES = "test_dialogues.jsonl"


@dataclass(frozen=True)
class Turn:
    """One utterance. `strategy` is None on unlabelled supporter turns and on the seeker's."""

    speaker: str
    text: str
    strategy: str | None = None


@dataclass(frozen=True)
class Dialogue:
    """One support dialogue with its setting. Turns alternate; either speaker may open it."""

    id: str
    scene: str
    description: str
    turns: tuple[Turn, ...]

    def supporter_turns(self) -> Iterator[int]:
        """Yields the indices of the supporter turns that follow a seeker turn; an opening greeting is not one."""
        return (i for i, turn in enumerate(self.turns) if turn.speaker == SUPPORTER and i > 0)


@dataclass(frozen=True)
class SeekerReply:
    """The seeker's reply. `end`: it ends the dialogue; `text` is None if it does nothing else."""

    text: str | None
    end: bool


Scores = Mapping[str, int]
"""The judge's scores of one supporter turn: {"E": ..., "I": ..., "H": ..., "S": ...}, integers 0 to 4 (Table 13)."""


@dataclass(frozen=True)
class PreferencePair:
    """A preferred and a dispreferred (strategy, response) after the same history: an element of D in eq. 6.

    Q is None if the turns come from no search.
    """

    dialogue: str
    history: tuple[Turn, ...]
    chosen: Turn
    rejected: Turn
    q_chosen: float | None
    q_rejected: float | None

    @property
    def key(self) -> tuple:
        """What tells it from another pair: a pair that several paths share has one key."""
        return self.history, self.chosen, self.rejected


@dataclass(frozen=True)
class Prediction:
    """A model's reply at one test turn, as returned (`raw`) and parsed. `strategy` is None if the reply does not begin with a known one.

    `cut`: it ended at the limit of tokens.
    """

    dialogue: str
    turn: int
    gold_strategy: str
    gold_response: str
    strategy: str | None
    response: str
    raw: str
    cut: bool = False

    def to_json(self) -> dict:
        """Returns the fields, as a line of predictions.jsonl holds them; `cut` only if it is true."""
        return {name: value for name, value in vars(self).items() if name != "cut" or value}


def system_prompt(strategies: StrategySet) -> str:
    """Returns the system prompt of every dialogue, the same in training, generation and judging."""
    lines = "\n".join(f"- {name}: {description}" for name, description in strategies.descriptions.items())
    return (
        "You are a caring supporter in a conversation with someone who is having a hard time. "
        "Choose the one strategy that helps most now, then reply in one to three short spoken sentences.\n"
        f"Strategies:\n{lines}\n"
        "Form of every reply: (Strategy) text"
    )


def supporter_message(turn: Turn) -> dict[str, str]:
    """Returns a supporter turn as a chat message, "(Strategy) text" if it is labelled."""
    content = format_reply(turn.strategy, turn.text) if turn.strategy else turn.text
    return {"role": "assistant", "content": content}


def prompt_messages(history: Iterable[Turn], strategies: StrategySet) -> list[dict[str, str]]:
    """Returns system prompt and history as chat messages {role, content}; the seeker is the user."""
    turns = (
        supporter_message(turn) if turn.speaker == SUPPORTER else {"role": "user", "content": turn.text} for turn in history
    )
    return [{"role": "system", "content": system_prompt(strategies)}, *turns]
