"""The supporter's side: the cell's model, or one of the references that a table of conversations stands between."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from omegaconf import DictConfig

from cso_lab.conversation.players import Players
from cso_lab.conversation.records import CUT, OUT_OF_TURNS, Conversation
from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn, prompt_messages
from cso_lab.core.strategies import StrategySet, format_reply, parse_reply
from cso_lab.llm.client import Question
from cso_lab.roles.parsing import parse_strategist, parse_supporter

if TYPE_CHECKING:
    from cso_lab.generation.decoding_strategies import Messages, Plain
    from cso_lab.generation.local import LocalModel
    from cso_lab.generation.served import ServedModel

REFERENCES = ("gold", "strategist", "random")


class Supporter(Protocol):
    """Whoever supports the seekers."""

    # How many conversations it takes part in at a time, to the end of all of them; None: all.
    batch_size: int | None
    # How a conversation ends in which it has no words.
    without_words: str

    def reply(self, conversations: Sequence[Conversation]) -> list[str | None]:
        """Returns its next reply in each conversation, "(Strategy) text" where it names one; None or "" where it has no words."""


class ModelSupporter:
    """The model of a cell, in the format it was trained in: it sees the turns so far, and nothing of the card."""

    without_words = CUT

    def __init__(self, model: "LocalModel | ServedModel", method: "Plain", strategies: StrategySet):
        """`method`: the decoding strategy, prepared."""
        self._model, self._method, self._strategies = model, method, strategies
        self.batch_size = model.batch_size

    def reply(self, conversations: Sequence[Conversation]) -> list[str | None]:
        """See `Supporter`. A conversation whose last turn is too long for the model gets None."""
        first = conversations[0]
        # Where replies are sampled, the same ones come again after an interruption.
        self._model.seed(first.seeker + 100_003 * len(first.exchanges))
        openings = [self._opening(conversation) for conversation in conversations]
        fitting = [opening for opening in openings if opening is not None]
        replies = iter(self._method(fitting, self._model) if fitting else ())
        return [None if opening is None else next(replies) for opening in openings]

    def _opening(self, conversation: Conversation) -> "Messages | None":
        return self._model.fit(self._method.opening(prompt_messages(conversation.history, self._strategies)))


class GoldSupporter:
    """The supporter of the test dialogues, replayed: whatever the seeker says, its next turn is that of the dialogue."""

    batch_size, without_words = None, OUT_OF_TURNS

    def __init__(self, dialogues: Sequence[Dialogue]):
        self._turns = {dialogue.id: _gold_turns(dialogue) for dialogue in dialogues}

    def reply(self, conversations: Sequence[Conversation]) -> list[str | None]:
        """See `Supporter`."""
        return [self._next(conversation) for conversation in conversations]

    def _next(self, conversation: Conversation) -> str | None:
        turns, turn = self._turns[conversation.card.id], len(conversation.exchanges)
        if turn >= len(turns):
            return None
        strategy, text = turns[turn].strategy, turns[turn].text
        return format_reply(strategy, text) if strategy else text


class RolePlayingSupporter:
    """The role players of the search as supporter: one chooses a strategy, the supporter's model words it."""

    batch_size, without_words = None, CUT

    def __init__(
        self,
        roles: Mapping,
        players: Players,
        strategies: StrategySet,
        choose: Callable[[Sequence[Conversation]], list[str | None]],
    ):
        """`choose` returns the strategy of the next turn of each conversation, None where nobody would choose one."""
        self._roles, self._players, self._strategies, self._choose = roles, players, strategies, choose

    def reply(self, conversations: Sequence[Conversation]) -> list[str | None]:
        """See `Supporter`."""
        chosen = self._choose(conversations)
        speaking = [(each, strategy) for each, strategy in zip(conversations, chosen, strict=True) if strategy]
        answers, _ = self._players.ask([self.question(*each) for each in speaking], "supporter")
        words = iter(answers)
        texts = [next(words) if strategy else None for strategy in chosen]
        return [text and format_reply(strategy, text) for strategy, text in zip(chosen, texts, strict=True)]

    def question(self, conversation: Conversation, strategy: str) -> Question:
        """Returns the question how the supporter's model words its next turn in this strategy."""
        values = {"strategy": strategy, "strategy_description": self._strategies.descriptions[strategy]}
        parse = partial(parse_supporter, strategies=self._strategies)
        turn, player = len(conversation.exchanges), self._roles["supporter"]
        return self._players.question("supporter", player, conversation, turn, conversation.history, parse, values)


def reference_supporter(
    name: str, roles: Mapping, players: Players, dialogues: Sequence[Dialogue], strategies: StrategySet, seed: int
) -> Supporter:
    """Returns the reference called `name`, one of REFERENCES."""
    if name == "gold":
        return GoldSupporter(dialogues)
    choose = _best_strategy(roles["strategist"], players, strategies) if name == "strategist" else _random(strategies, seed)
    return RolePlayingSupporter(roles, players, strategies, choose)


@contextmanager
def model_supporter(
    cfg: DictConfig,
    checkpoint: Path | None,
    strategies: StrategySet,
    training: Sequence[Dialogue],
    folder: Path,
    calls: Path,
    served_identity: object,
) -> Iterator[ModelSupporter]:
    """Yields the cell's model as supporter. `calls`: the folder of a served model's journal; the others as in `generate.engine`."""
    from hydra.utils import instantiate

    from cso_lab.generation.generate import engine

    method: Plain = instantiate(cfg.decoding.method)
    method.prepare(training, folder)
    with engine(cfg, checkpoint, strategies, folder, served_identity, calls) as model:
        yield ModelSupporter(model, method, strategies)


def read_reply(raw: str | None, strategies: StrategySet) -> tuple[str | None, str]:
    """Returns (strategy, text) of a supporter's reply; the text is "" where it has no words."""
    return parse_reply(raw or "", strategies)


def strategist_question(conversation: Conversation, strategist: Mapping, players: Players, strategies: StrategySet) -> Question:
    """Returns the question which strategies would suit the next supporter turn."""
    values = {"strategies": "\n".join(f"- {name}: {text}" for name, text in strategies.descriptions.items())}
    parse, turn = partial(parse_strategist, strategies=strategies), len(conversation.exchanges)
    return players.question("strategist", strategist, conversation, turn, conversation.history, parse, values)


def _gold_turns(dialogue: Dialogue) -> list[Turn]:
    """Returns the supporter turns after the seeker's first."""
    opened = next((i for i, turn in enumerate(dialogue.turns) if turn.speaker == SEEKER), 0)
    return [turn for turn in dialogue.turns[opened:] if turn.speaker == SUPPORTER]


def _random(strategies: StrategySet, seed: int) -> Callable[[Sequence[Conversation]], list[str | None]]:
    def choose(conversations: Sequence[Conversation]) -> list[str | None]:
        draws = (random.Random(f"{seed}/{each.seeker}/{len(each.exchanges)}/strategy") for each in conversations)
        return [rng.choice(strategies.names) for rng in draws]

    return choose


def _best_strategy(
    strategist: Mapping, players: Players, strategies: StrategySet
) -> Callable[[Sequence[Conversation]], list[str | None]]:
    """Returns a function that asks the strategist; of equal scores the first strategy in the canonical order wins."""

    def choose(conversations: Sequence[Conversation]) -> list[str | None]:
        questions = [strategist_question(each, strategist, players, strategies) for each in conversations]
        answers, _ = players.ask(questions, "strategist")
        return [scores and max(strategies.names, key=lambda name: scores.get(name, -1)) for scores in answers]

    return choose
