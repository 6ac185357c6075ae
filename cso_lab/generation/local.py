"""A model that runs in this process, batch by batch."""

import gc
from collections.abc import Sequence
from functools import cached_property
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cso_lab.config.cells import GENERATOR, is_decoupled
from cso_lab.core.errors import UserError
from cso_lab.core.strategies import StrategySet, format_reply, parse_reply
from cso_lab.llm.reasoning import ReplyText, strip_reasoning
from cso_lab.training.backbone import load_chat_format, load_model
from cso_lab.training.chat_format import ChatFormat, Messages

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from cso_lab.generation.batched_decoding import CarriedContexts, Decoding
    from cso_lab.generation.planner import Planner


class LocalModel:
    """The backbone, or the model in a checkpoint folder. A context manager; the weights are loaded at the first call.

    Of a decoupled algorithm it is two models: the planner in the folder writes the opening "(Strategy)", the generator below it the rest.
    """

    def __init__(self, cfg: DictConfig, checkpoint: Path | None, strategies: StrategySet, carry: bool = False):
        """`carry`: conversations that continue those of the call before are not computed from their beginning (`CarriedContexts`)."""
        self._cfg, self._checkpoint, self._strategies = cfg, checkpoint, strategies
        self._is_decoupled = is_decoupled(cfg)
        self._chat = load_chat_format(cfg)
        self.batch_size: int = cfg.generation.batch_size
        self._carry = carry

    def __enter__(self) -> "LocalModel":
        return self

    def __exit__(self, *_) -> None:
        """Frees the model's memory, because all jobs of a sweep share one process."""
        import torch

        for held in ("_model", "_carried", "_planner"):
            self.__dict__.pop(held, None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def fit(self, messages: Messages) -> Messages | None:
        """Returns the conversation within `generation.max_prompt_length` (see ChatFormat.fit); None if it cannot be made to fit."""
        return self._chat.fit(messages, self._cfg.generation.max_prompt_length)

    def seed(self, batch: int) -> None:
        """Seeds sampling for the batch that begins with turn number `batch`, so that a continued run samples the same replies."""
        import torch

        torch.manual_seed(self._cfg.generation.seed + batch)

    def load(self) -> None:
        """Loads the weights now instead of at the first call."""
        self._model, self._planner  # noqa: B018

    def __call__(self, conversations: Sequence[Messages], free: bool = False, strategy: str | None = None) -> list[ReplyText]:
        """Returns the replies. Raises UserError if a conversation is too long.

        Every reply begins with `strategy` if given, else with any strategy as `generation.constrain` says. `free` replies are not
        constrained.
        """
        from cso_lab.generation.batched_decoding import reply_ids

        fitted = [self._fitted(messages) for messages in conversations]
        openings, form = [], self._cfg.generation.constrain
        if not free and (strategy or form != "none"):
            openings = strategy_openings(self._chat, fitted[0], self._strategies)
        if openings and strategy:
            openings = [openings[self._strategies.names.index(strategy)]]
        prompts = [self._chat.prompt_ids(messages) for messages in fitted]
        by_likelihood = form == "likelihood" and len(openings) > 1
        forced: Sequence[int] = ()
        if self._planner is not None and not free and not strategy:
            openings, forced = self._planner.plan(prompts, self._decoding, openings, by_likelihood)
            by_likelihood = False
        replies = reply_ids(self._model, prompts, self._decoding, openings, self._carried, by_likelihood, forced)
        return [self._reply(ids) for ids in replies]

    def replies_in(
        self, conversations: Sequence[Messages], strategies: Sequence[str], seeds: Sequence[int]
    ) -> list[tuple[str, bool, int, int]]:
        """Returns for each conversation (the reply's text after "(Strategy)", whether it is cut, tokens of the prompt, of the reply).

        Each reply is in its own strategy; it is sampled by its own seed, whatever is generated beside it.
        """
        from cso_lab.generation.batched_decoding import reply_ids

        fitted = [self._fitted(messages) for messages in conversations]
        openings = strategy_openings(self._chat, fitted[0], self._strategies)
        forced = [self._strategies.names.index(strategy) for strategy in strategies]
        prompts = [self._chat.prompt_ids(messages) for messages in fitted]
        replies = reply_ids(self._model, prompts, self._decoding, openings, self._carried, forced=forced, seeds=seeds)
        texts = [self._reply(ids) for ids in replies]
        return [
            (parse_reply(text, self._strategies)[1], text.cut, len(prompt), len(ids))
            for text, prompt, ids in zip(texts, prompts, replies, strict=True)
        ]

    def _reply(self, ids: Sequence[int]) -> ReplyText:
        """Returns the text of a reply; it is cut if no token ended it."""
        tokenizer, cut = self._chat.tokenizer, len(ids) >= self._cfg.generation.max_new_tokens
        plain = tokenizer.decode(ids, skip_special_tokens=True)
        # Some of the marks around reasoning are special tokens.
        marked = tokenizer.decode(ids, skip_special_tokens=False)
        answer = strip_reasoning(marked)
        if answer == marked:
            return ReplyText(plain, cut)
        for token in tokenizer.all_special_tokens:
            answer = answer.replace(token, "")
        return ReplyText(marked, cut, answer.strip())

    def opening_probabilities(self, messages: Messages) -> dict[str, float]:
        """Returns {strategy: probability that the model's reply begins with "(Strategy)"}, at temperature 1 and without constraints.

        It is the probability of the tokens with which training responses begin. The sum is below 1 by the probability of all other
        openings.
        """
        from cso_lab.generation.batched_decoding import opening_log_probabilities

        fitted = self._fitted(messages)
        openings = strategy_openings(self._chat, fitted, self._strategies)
        chooser = self._model if self._planner is None else self._planner.model
        (scores,) = opening_log_probabilities(chooser, [self._chat.prompt_ids(fitted)], openings)
        return {name: exp(score) for name, score in zip(self._strategies.names, scores, strict=True)}

    def _fitted(self, messages: Messages) -> Messages:
        fitted = self.fit(messages)
        if fitted is None:
            raise UserError(
                f"system prompt and {messages[-1]['content'][:40]!r} ... are longer than"
                f" generation.max_prompt_length={self._cfg.generation.max_prompt_length}: raise it"
            )
        return fitted

    @cached_property
    def _model(self) -> "PreTrainedModel":
        checkpoint = self._checkpoint / GENERATOR if self._is_decoupled else self._checkpoint
        return load_model(self._cfg, checkpoint, dtype=self._cfg.generation.dtype)

    @cached_property
    def _planner(self) -> "Planner | None":
        if not self._is_decoupled:
            return None
        from cso_lab.generation.planner import Planner

        model = load_model(self._cfg, self._checkpoint, dtype=self._cfg.generation.dtype)
        return Planner(model, self._chat.tokenizer, self._carry)

    @cached_property
    def _carried(self) -> "CarriedContexts | None":
        from cso_lab.generation.batched_decoding import CarriedContexts

        return CarriedContexts() if self._carry else None

    @property
    def _decoding(self) -> "Decoding":
        from cso_lab.generation.batched_decoding import Decoding

        generation = self._cfg.generation
        return Decoding(
            max_new_tokens=generation.max_new_tokens,
            temperature=generation.temperature,
            ends=reply_ends(self._model.generation_config, self._chat.tokenizer),
        )


def strategy_openings(chat: ChatFormat, messages: Messages, strategies: StrategySet) -> list[list[int]]:
    """Returns the token ids of "(Strategy)" for each strategy, as they begin a training response after the prompt `messages`."""
    before = len(chat.prompt_ids(messages))
    openings = []
    for name in strategies.names:
        opening = format_reply(name, "").rstrip()
        reply = {"role": "assistant", "content": format_reply(name, "I")}
        ids = chat.ids(chat.prompt(messages) + chat.response(messages, reply))[before:]
        # The fewest tokens that contain the closing bracket: a tokenizer may merge it with what follows.
        length = next(n for n in range(1, len(ids) + 1) if opening in chat.tokenizer.decode(ids[:n]))
        openings.append(ids[:length])
    return openings


def reply_ends(settings: "GenerationConfig", tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Returns the ids of tokens that end a reply: the template's end of turn and those of the model's generation settings."""
    ids = settings.eos_token_id
    ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *ids]))
