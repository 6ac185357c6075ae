"""DPO in which the strategy of a response and its wording have weights of their own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unittest.mock import patch

import torch
from transformers import PreTrainedTokenizerBase
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from cso_lab.training.strategy_tokens import strategy_tokens

_SIDES = ("chosen", "rejected")


class StrategyDPOTrainer(DPOTrainer):
    """DPO on the log-probability `strategy_weight` x (sum over the strategy's tokens) + `response_weight` x (sum over the other ones).

    This holds for the policy and for the reference alike. With both weights 1 it is DPO. The tokens of "(Strategy)" are the strategy's
    (see `strategy_tokens`), the wording and the end of the turn the other ones.
    """

    def __init__(self, *, strategy_weight: float, response_weight: float, processing_class: PreTrainedTokenizerBase, **options):
        self._token_weights = {"strategy_weight": strategy_weight, "response_weight": response_weight}
        collator = _WeightedCollator(pad_token_id=processing_class.pad_token_id)
        super().__init__(processing_class=processing_class, data_collator=collator, **options)

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        """Returns the tokenized rows with the weight of every token of their responses.

        Reference log-probabilities are cached by the rows, and so by these weights.
        """
        dataset = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        with args.main_process_first(local=False):
            return dataset.map(_with_weights, fn_kwargs={"tokenizer": processing_class, **self._token_weights})

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns = [_column(side) for side in _SIDES]
        self._signature_columns += [column for column in columns if column not in self._signature_columns]

    def compute_ref_log_probs(self, model, inputs: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the weighted log-probabilities of the chosen and of the rejected responses by the reference model."""
        weights, inputs = _split(inputs)
        return super().compute_ref_log_probs(_weighted(model, weights), inputs)

    def _compute_loss(self, model, inputs: dict, return_outputs: bool):
        """Returns TRL's loss on weighted log-probabilities."""
        weights, others = _split(inputs)
        if not self.precompute_ref_logps:
            chosen, rejected = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
            others |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        # TRL would ask the reference model itself, whose log-probabilities are unweighted.
        with patch.object(self, "precompute_ref_logps", True):
            return super()._compute_loss(_weighted(model, weights), others, return_outputs)


@dataclass
class _WeightedCollator(DataCollatorForPreference):
    """Adds `token_weights` to TRL's batch: (texts, length), 0 for the tokens of prompts and for padding."""

    def torch_call(self, examples: list[dict]) -> dict:
        batch = super().torch_call(examples)
        weights = torch.zeros(batch["input_ids"].shape)
        texts = [(example["prompt_ids"], example[_column(side)]) for side in _SIDES for example in examples]
        for row, (prompt, response) in zip(weights, texts, strict=True):
            row[len(prompt) : len(prompt) + len(response)] = torch.tensor(response)
        return {**batch, "token_weights": weights}


def _column(side: str) -> str:
    return f"{side}_weights"


def _with_weights(
    row: dict, tokenizer: PreTrainedTokenizerBase, strategy_weight: float, response_weight: float
) -> dict[str, Sequence[float]]:
    """Returns the columns with the weights of the tokens of both responses of a tokenized row."""
    columns = {}
    for side in _SIDES:
        ids = row[f"{side}_ids"]
        of_strategy = strategy_tokens(ids, tokenizer)
        columns[_column(side)] = [float(strategy_weight if i in of_strategy else response_weight) for i in range(len(ids))]
    return columns


def _split(inputs: dict) -> tuple[torch.Tensor, dict]:
    """Returns the weights of a batch's tokens, and the rest of the batch."""
    return inputs["token_weights"], {name: value for name, value in inputs.items() if name != "token_weights"}


def _weighted(model: Callable, weights: torch.Tensor) -> Callable:
    """Returns a function that calls the model, and multiplies the log-probabilities of the tokens by their weights."""

    def forward(**inputs):
        output = model(**inputs)
        if "labels" in inputs:
            output.log_probs = output.log_probs * weights[:, 1:].to(output.log_probs.dtype)
        return output

    return forward
