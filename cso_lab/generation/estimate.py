"""Estimates what generating would take, on a server or in this process: a dry run in which the gold replies answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cso_lab.core.records import Dialogue, supporter_message
from cso_lab.core.strategies import StrategySet
from cso_lab.generation.decoding_strategies import Messages, Plain
from cso_lab.generation.generate import turns_to_predict
from cso_lab.llm import prices
from cso_lab.llm.client import CHARACTERS_A_TOKEN, estimated_tokens

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from cso_lab.training.chat_format import ChatFormat


def estimate_generation(
    cfg: DictConfig, dialogues: Sequence[Dialogue], strategies: StrategySet, training: Sequence[Dialogue]
) -> str:
    """Returns in one line the calls, tokens and dollars of generating for the test `dialogues` from the start.

    Tokens are characters divided by four, and replies are as long as the gold ones. Raises UserError as `generate` does.
    """
    method = _method(cfg, training)
    model = _GoldReplies(_gold(dialogues), cfg.generation.max_new_tokens)
    requests = turns_to_predict(cfg, dialogues, strategies, method, model)
    method([request.messages for request in requests], model)
    name = cfg.generation.client.model
    tokens = model.prompt_tokens, model.completion_tokens
    dollars = prices.describe({name: tokens}, "generation.client.batch")
    return f"{model.calls:,} calls to {name}, about {tokens[0]:,} + {tokens[1]:,} tokens{dollars}"


@dataclass(frozen=True)
class LocalGeneration:
    """What generating in this process takes: turns; prompt tokens computed, and as rows; new tokens, bytes and operations at most."""

    turns: int
    computed: int
    as_rows: int
    new: int
    weights: int
    cache: int
    operations: float


def plan_generation(
    cfg: DictConfig,
    dialogues: Sequence[Dialogue],
    strategies: StrategySet,
    training: Sequence[Dialogue],
    config: "PretrainedConfig",
    chat: "ChatFormat",
    dtype_bytes: int,
) -> LocalGeneration:
    """Returns what generating for the `dialogues` takes of a model with this configuration. Raises UserError as `generate` does."""
    import torch
    from transformers import AutoModelForCausalLM

    from cso_lab.training.estimate import backbone_bytes

    method, generation = _method(cfg, training), cfg.generation
    model = _LocalReplies(_gold(dialogues), cfg, chat)
    requests = turns_to_predict(cfg, dialogues, strategies, method, model)
    for first in range(0, len(requests), generation.batch_size):
        method([request.messages for request in requests[first : first + generation.batch_size]], model)
    with torch.device("meta"):
        meta = AutoModelForCausalLM.from_config(config)
    parameters, output = meta.num_parameters(), meta.get_output_embeddings().weight.numel()
    inputs = meta.get_input_embeddings().weight.numel()
    inner = parameters - inputs - (0 if config.get_text_config().tie_word_embeddings else output)
    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    a_token = 2 * text.num_hidden_layers * text.num_key_value_heads * size * dtype_bytes
    return LocalGeneration(
        turns=len(requests),
        computed=model.computed,
        as_rows=model.as_rows,
        new=model.new,
        weights=backbone_bytes(cfg, parameters, inner, dtype_bytes),
        cache=model.held * a_token,
        operations=2.0 * inner * (model.computed + model.new) + 2.0 * output * model.new,
    )


def _method(cfg: DictConfig, training: Sequence[Dialogue]) -> Plain:
    """Returns the decoding strategy, prepared."""
    from hydra.utils import instantiate

    method: Plain = instantiate(cfg.decoding.method)
    with TemporaryDirectory() as folder:
        method.prepare(training, folder)
    return method


def _gold(dialogues: Sequence[Dialogue]) -> list[str]:
    return [supporter_message(turn)["content"] for one in dialogues for turn in one.turns if turn.strategy]


class _LocalReplies:
    """Takes the place of a model in this process: gives gold replies and counts the tokens of its batches."""

    def __init__(self, replies: Sequence[str], cfg: DictConfig, chat: "ChatFormat"):
        self._replies, self._generation, self._chat = cycle(replies), cfg.generation, chat
        self.computed = self.as_rows = self.new = self.held = 0

    def fit(self, messages: Messages) -> Messages | None:
        """Returns the conversation within `generation.max_prompt_length`; None if it cannot be made to fit."""
        return self._chat.fit(messages, self._generation.max_prompt_length)

    def __call__(self, conversations: Sequence[Messages], free: bool = False) -> list[str]:
        """Returns a reply to each conversation."""
        from cso_lab.generation.batched_decoding import planned_tokens

        prompts = [self._chat.prompt_ids(self.fit(messages) or messages) for messages in conversations]
        computed, held = planned_tokens(prompts, self._generation.max_new_tokens)
        self.computed += computed
        self.as_rows += sum(map(len, prompts))
        self.new += len(prompts) * self._generation.max_new_tokens
        self.held = max(self.held, held)
        return list(islice(self._replies, len(prompts)))


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
