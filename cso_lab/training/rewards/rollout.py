"""A reply that the model wrote in training, what is known about the state it was written in, and the interface of a reward."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cso_lab.core.records import SEEKER, SUPPORTER, Scores, Turn
from cso_lab.core.strategies import StrategySet, parse_reply


@dataclass(frozen=True)
class Rollout:
    """One reply and its state.

    `strategy` is None if the reply does not begin with a known one; `text` is then the whole reply. `history` is the whole conversation
    before it, also the turns that did not fit into the prompt. `preferred` are the strategies of the preferred turns in this state, and
    `values` the tree's Q of each strategy that was scored there, {} if there is no tree.
    """

    strategy: str | None
    text: str
    history: tuple[Turn, ...]
    preferred: tuple[str, ...]
    values: Mapping[str, float]
    dialogue: str = ""
    scene: str = ""
    description: str = ""


class Judge(Protocol):
    """The judge of the roles, for rewards that want its scores."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[Scores | None]:
        """Returns the scores of each reply, E, I, H and S from 0 to 4; None for a reply that it could not be had for."""


class Reward(Protocol):
    """A reward, as the training uses it."""

    def __call__(self, rollouts: Sequence[Rollout], judge: Judge) -> list[float | None]:
        """Returns the reward of each reply; None where the reward does not apply."""


def rollout(row: Mapping, reply: str, strategies: StrategySet) -> Rollout:
    """Returns a reply to the prompt of `row`, a line of prompts.jsonl."""
    strategy, text = parse_reply(reply, strategies)
    return Rollout(
        strategy=strategy,
        text=text,
        history=tuple(_turn(message, strategies) for message in row["prompt"] if message["role"] != "system"),
        preferred=tuple(row["preferred"]),
        values=row["values"],
        **{name: row.get(name, "") for name in ("dialogue", "scene", "description")},
    )


def _turn(message: Mapping[str, str], strategies: StrategySet) -> Turn:
    if message["role"] == "user":
        return Turn(SEEKER, message["content"])
    strategy, text = parse_reply(message["content"], strategies)
    return Turn(SUPPORTER, text, strategy)
