"""Estimates what it would take to have a model on a server generate, before it is asked: a dry run in which the gold replies answer."""

from collections.abc import Sequence
from itertools import cycle, islice
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

from cso_lab.core.records import Dialogue, supporter_message
from cso_lab.core.strategies import StrategySet
from cso_lab.generation.decoding_strategies import Messages, Plain
from cso_lab.generation.generate import turns_to_predict
from cso_lab.llm import prices
from cso_lab.llm.client import CHARACTERS_A_TOKEN, estimated_tokens


def estimate_generation(
    cfg: DictConfig, dialogues: Sequence[Dialogue], strategies: StrategySet, training: Sequence[Dialogue]
) -> str:
    """Returns in one line the calls, tokens and dollars of generating for the test `dialogues` from the start.

    Tokens are characters divided by four, and replies are as long as the gold ones. Raises UserError as `generate` does.
    """
    from hydra.utils import instantiate

    method: Plain = instantiate(cfg.decoding.method)
    with TemporaryDirectory() as folder:
        method.prepare(training, folder)
    gold = [supporter_message(turn)["content"] for one in dialogues for turn in one.turns if turn.strategy]
    model = _GoldReplies(gold, cfg.generation.max_new_tokens)
    requests = turns_to_predict(cfg, dialogues, strategies, method, model)
    method([request.messages for request in requests], model)
    name = cfg.generation.client.model
    tokens = model.prompt_tokens, model.completion_tokens
    dollars = prices.describe({name: tokens}, "generation.client.batch")
    return f"{model.calls:,} calls to {name}, about {tokens[0]:,} + {tokens[1]:,} tokens{dollars}"


class _GoldReplies:
    """Takes the place of a model: gives gold replies and counts."""

    def __init__(self, replies: Sequence[str], max_tokens: int | None):
        self._replies, self._max_tokens = cycle(replies), max_tokens
        self.calls = self.prompt_tokens = self.completion_tokens = 0

    def fit(self, messages: Messages) -> Messages:
        """Returns all messages."""
        return messages

    def __call__(self, conversations: Sequence[Messages], free: bool = False) -> list[str]:
        """Returns a reply to each conversation."""
        replies = list(islice(self._replies, len(conversations)))
        self.calls += len(replies)
        self.prompt_tokens += sum(map(estimated_tokens, conversations))
        limit = self._max_tokens or float("inf")
        self.completion_tokens += sum(min(len(reply) // CHARACTERS_A_TOKEN, limit) for reply in replies)
        return replies
