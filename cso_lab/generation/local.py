"""A model in this process, asked batch by batch."""

import gc
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.strategies import StrategySet, format_reply
from cso_lab.training.backbone import load_model, load_tokenizer
from cso_lab.training.chat_format import ChatFormat, Messages


class LocalModel:
    """The backbone, or what a checkpoint folder holds. The weights are loaded when it is first asked. Use it in a `with`."""

    def __init__(self, cfg, checkpoint: Path | None, strategies: StrategySet):
        self._cfg, self._checkpoint, self._strategies = cfg, checkpoint, strategies
        self._chat = ChatFormat(load_tokenizer(cfg))
        self.batch_size: int = cfg.generation.batch_size

    def __enter__(self) -> "LocalModel":
        return self

    def __exit__(self, *_) -> None:
        """All jobs of a sweep share one process."""
        import torch

        self.__dict__.pop("_model", None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def fit(self, messages: Messages) -> Messages | None:
        """What the model is shown of a conversation (see ChatFormat.fit); None when it is too long all the same."""
        return self._chat.fit(messages, self._cfg.generation.max_prompt_length)

    def seed(self, batch: int) -> None:
        """Before the batch that begins with turn number `batch`: a continued run samples as an undisturbed one does."""
        import torch

        torch.manual_seed(self._cfg.generation.seed + batch)

    def load(self) -> None:
        """Load the weights now, and not when it is first asked."""
        self._model  # noqa: B018

    def __call__(self, conversations: Sequence[Messages], free: bool = False, strategy: str | None = None) -> list[str]:
        """The replies; with `generation.constrain` = "format" each opens with a strategy, with `strategy` each with that one,
        unless `free`."""
        from cso_lab.generation.batched_decoding import reply_ids

        fitted = [self._fitted(messages) for messages in conversations]
        openings = []
        if not free and (strategy or self._cfg.generation.constrain == "format"):
            openings = strategy_openings(self._chat, fitted[0], self._strategies)
        if openings and strategy:
            openings = [openings[self._strategies.names.index(strategy)]]
        replies = reply_ids(self._model, [self._chat.prompt_ids(messages) for messages in fitted], self._decoding, openings)
        return [self._chat.tokenizer.decode(ids, skip_special_tokens=True) for ids in replies]

    def opening_probabilities(self, messages: Messages) -> dict[str, float]:
        """For each strategy, the probability that the model's reply opens with "(Strategy)", whatever `generation` asks for.

        That is of the tokens by which it stands in training responses, at temperature 1. The eight sum to what is left of 1 after
        all other openings.
        """
        from cso_lab.generation.probabilities import continuation_probabilities

        fitted = self._fitted(messages)
        openings = strategy_openings(self._chat, fitted, self._strategies)
        found = continuation_probabilities(self._model, self._chat.prompt_ids(fitted), openings)
        return dict(zip(self._strategies.names, found, strict=True))

    def _fitted(self, messages: Messages) -> Messages:
        fitted = self.fit(messages)
        if fitted is None:
            raise UserError(
                f"system prompt and {messages[-1]['content'][:40]!r} ... are longer than"
                f" generation.max_prompt_length={self._cfg.generation.max_prompt_length}: raise it"
            )
        return fitted

    @cached_property
    def _model(self):
        return load_model(self._cfg, self._checkpoint, dtype=self._cfg.generation.dtype)

    @property
    def _decoding(self):
        from cso_lab.generation.batched_decoding import Decoding

        generation = self._cfg.generation
        return Decoding(
            max_new_tokens=generation.max_new_tokens,
            temperature=generation.temperature,
            ends=_ends(self._model, self._chat.tokenizer),
        )


def strategy_openings(chat: ChatFormat, messages: Messages, strategies: StrategySet) -> list[list[int]]:
    """For each strategy, the token ids of "(Strategy)" as they stand in a training response after the prompt `messages`."""
    before = len(chat.prompt_ids(messages))
    openings = []
    for name in strategies.names:
        opening = format_reply(name, "").rstrip()
        reply = {"role": "assistant", "content": format_reply(name, "I")}
        ids = chat.ids(chat.prompt(messages) + chat.response(messages, reply))[before:]
        # A tokenizer may join the closing bracket with what follows: as many tokens as it takes to have it.
        length = next(n for n in range(1, len(ids) + 1) if opening in chat.tokenizer.decode(ids[:n]))
        openings.append(ids[:length])
    return openings


def _ends(model, tokenizer) -> tuple[int, ...]:
    """Tokens that end a reply: the template's turn end, and whatever else the model's own configuration ends at."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [] if own is None else [own]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *own]))
