"""The strategy planner of a decoupled algorithm: it writes the opening "(Strategy)" with which another model's reply begins."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cso_lab.generation.batched_decoding import CarriedContexts, Decoding, Ids, reply_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Planner:
    """A model that writes replies up to the parenthesis that closes their strategy."""

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", carry: bool):
        """`carry`: conversations that continue those of the call before are not computed from their beginning."""
        self.model = model
        self._closing = tuple(index for token, index in tokenizer.get_vocab().items() if ")" in token)
        self._carried = CarriedContexts() if carry else None

    def plan(
        self, prompts: Sequence[Ids], decoding: Decoding, openings: Sequence[Ids], by_likelihood: bool
    ) -> tuple[list[Ids], list[int]]:
        """Returns the distinct openings that are written, and for each prompt the index of its own.

        `openings` and `by_likelihood` are those of `reply_ids`. Without openings the model writes freely: what it ends or what reaches the
        limit of tokens before a parenthesis is closed is the whole reply.
        """
        until_closed = replace(decoding, ends=(*decoding.ends, *self._closing))
        written = reply_ids(self.model, prompts, until_closed, openings, self._carried, by_likelihood, keep_end=True)
        index: dict[tuple[int, ...], int] = {}
        chosen = [index.setdefault(tuple(ids), len(index)) for ids in written]
        return [list(ids) for ids in index], chosen
