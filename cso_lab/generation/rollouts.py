"""Replies that a model in training writes to its prompts, several to each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cso_lab.core.strategies import StrategySet
from cso_lab.generation.batched_decoding import Decoding, reply_ids
from cso_lab.generation.local import strategy_openings
from cso_lab.training.chat_format import ChatFormat

if TYPE_CHECKING:
    from trl import GRPOTrainer

_ANY_CONVERSATION = [{"role": "user", "content": "I had a hard week."}]


class SharedPromptRollouts:
    """Samples the replies of all prompts of a step at once; what prompts have in common is computed once, as in generation.

    With `constrain` other than "none" every reply begins with a strategy, chosen as in generation: token by token, or as a whole by
    likelihood. The tokens of such an opening between which there is no choice are left out of the loss: the constrained model writes them
    with probability 1. The others are counted with the probability that the model gives them without the constraint.
    """

    def __init__(self, constrain: str, chat: ChatFormat, strategies: StrategySet):
        self._chat, self._by_likelihood = chat, constrain == "likelihood"
        self._openings = strategy_openings(chat, _ANY_CONVERSATION, strategies) if constrain != "none" else []

    def __call__(self, prompts: Sequence[str], trainer: "GRPOTrainer") -> dict:
        """Returns what TRL's `rollout_func` does: the token ids of each prompt and its reply, up to and including the token that ends it.

        A prompt stands in `prompts` once for each reply to it.
        """
        model = _without_wrappers(trainer)
        ids = [self._chat.ids(prompt) for prompt in prompts]
        decoding = Decoding(trainer.max_completion_length, trainer.temperature, tuple(trainer.eos_token_ids))
        training = model.training
        model.eval()  # in training mode recomputed activations would switch off the cache
        try:
            with trainer.accelerator.autocast():
                replies = reply_ids(model, ids, decoding, self._openings, by_likelihood=self._by_likelihood, keep_end=True)
        finally:
            model.train(training)
        masks = {"env_mask": [[int(not given) for given in self._given(reply)] for reply in replies]} if self._openings else {}
        return {"prompt_ids": ids, "completion_ids": replies, "logprobs": None, **masks}

    def _given(self, reply: Sequence[int]) -> list[bool]:
        """Returns for each token of a reply whether it is the only one with which an opening could go on.

        By likelihood all openings are weighed with all their tokens, so only what all of them begin with leaves no choice.
        """
        given = []
        for index in range(len(reply)):
            begun = [opening for opening in self._openings if self._by_likelihood or opening[:index] == list(reply[:index])]
            complete = any(list(reply[: len(opening)]) == opening for opening in self._openings if len(opening) <= index)
            given.append(not complete and len({tuple(opening[: index + 1]) for opening in begun}) == 1)
        return given


def _without_wrappers(trainer: "GRPOTrainer"):
    """Returns the causal language model inside those of several processes and of the adapter, whose layers it has."""
    from peft import PeftModel

    model = trainer.accelerator.unwrap_model(trainer.model)
    return model.get_base_model() if isinstance(model, PeftModel) else model
