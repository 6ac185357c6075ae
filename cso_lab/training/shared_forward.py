"""Prefix sharing inside TRL's trainers: makes the models of a trainer run on prefix forests (see `prefix_forest`)."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from unittest.mock import patch

import torch
from omegaconf import DictConfig

from cso_lab.training.arguments import unshared_batch
from cso_lab.training.prefix_forest import IGNORED, TokenCount, share_prefixes

# The fields of TRL's fused output layer from which the losses of trainers that read whole logits are computed instead.
_FIELDS = ("log_probs", "mean_logits")


@contextmanager
def sharing(trainer_class: type, training: DictConfig, texts: int) -> Iterator[Callable[[object], None]]:
    """Yields a function to call with a trainer of this class that is constructed within the context; it then shares prefixes.

    The trainer's `token_count` is set to the count of tokens (see TokenCount), or to None if `training.share_prefixes` is off; then the
    trainer stays TRL's own. `texts` is the number of texts in a row.

    Most trainers add TRL's fused output layer to their models, the reference model included, while they are constructed, and may compute
    reference log-probabilities at once: within the context adding that layer adds prefix sharing too. The others are changed afterwards.
    """
    # For a user's own trainer class this is the module of the TRL trainer it is derived from.
    modules = [sys.modules[base.__module__] for base in trainer_class.__mro__]
    module = next((module for module in modules if hasattr(module, "add_fused_lm_head")), None)
    count = TokenCount(texts, unshared_batch(training)) if training.share_prefixes else None
    settings = (training.tokens_per_tree, training.max_activation_tokens, training.tree_mask, count)

    def set_token_count(trainer) -> None:
        trainer.token_count = count

    if not training.share_prefixes:
        yield set_token_count
    elif module is not None:
        add_fused_lm_head = module.add_fused_lm_head

        def add_both(model, **options):
            add_fused_lm_head(model, **options)
            share_prefixes(model, *settings)

        with patch.object(module, "add_fused_lm_head", add_both):
            yield set_token_count
    else:

        def change_trainer(trainer) -> None:
            set_token_count(trainer)
            _share_in_logit_trainer(trainer, *settings)

        yield change_trainer


def _share_in_logit_trainer(trainer, *settings) -> None:
    """Adds prefix sharing to trainers (CPO with SimPO's loss, ORPO) that compute log-probabilities from `model(...).logits`.

    They need the log-probabilities of the responses, and ORPO also the likelihood of the whole chosen row. The logits themselves only
    go into two logged means, which are here over the scored positions and not over prompts and padding.
    """
    from peft import PeftModel
    from trl.trainer.utils import add_fused_lm_head

    model = trainer.model.get_base_model() if isinstance(trainer.model, PeftModel) else trainer.model
    add_fused_lm_head(model, outputs=_FIELDS)
    share_prefixes(model, *settings)
    trainer.concatenated_forward = MethodType(_concatenated_forward, trainer)


def likelihood_covers_prompt(trainer) -> bool:
    """Returns whether the likelihood term of a CPO or ORPO trainer is over the whole chosen row (ORPO's), not only over its response."""
    return not hasattr(trainer, "cpo_alpha")


def _concatenated_forward(trainer, model, batch: dict):
    """Returns what TRL's method returns: chosen and rejected log-probabilities, chosen and rejected logits, negative log-likelihood.

    Log-probabilities, (pairs,), are means over the response if the loss uses means. In place of the logits are their means over the
    vocabulary at the scored positions, (scored,).
    """
    rows = trainer.concatenated_inputs(
        batch, padding_value=trainer.processing_class.pad_token_id, device=trainer.accelerator.device
    )
    ids, attended = rows["concatenated_input_ids"], rows["concatenated_attention_mask"]
    in_response = rows["concatenated_labels"] != IGNORED
    pairs = len(batch["chosen_labels"])
    chosen = torch.arange(len(ids), device=ids.device)[:, None] < pairs
    orpo = likelihood_covers_prompt(trainer)
    in_likelihood = chosen & (attended.bool() if orpo else in_response)
    output = model(
        input_ids=ids,
        attention_mask=attended,
        labels=ids.masked_fill(~(in_response | in_likelihood), IGNORED),
        fused_lm_head=True,
        use_cache=False,
    )
    in_response, in_likelihood = in_response[:, 1:], in_likelihood[:, 1:]
    log_probs = (output.log_probs * in_response).sum(-1)
    if orpo or trainer.loss_type in ("ipo", "simpo"):
        log_probs = log_probs / in_response.sum(-1)
    likelihood = -output.log_probs[in_likelihood].mean() if orpo or trainer.cpo_alpha else log_probs.new_zeros(())
    logits = output.mean_logits
    return (
        log_probs[:pairs],
        log_probs[pairs:],
        logits[:pairs][in_response[:pairs]],
        logits[pairs:][in_response[pairs:]],
        likelihood,
    )
