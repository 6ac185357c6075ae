"""Prefix sharing inside TRL's trainers: where the models they make are told to fold their batches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from unittest.mock import patch

import torch

from cso_lab.training.arguments import stock_batch
from cso_lab.training.prefix_forest import IGNORED, TokenCount, share_prefixes

# What trainers that read whole logits need of TRL's fused output layer instead.
_FIELDS = ("log_probs", "mean_logits")


@contextmanager
def sharing(trainer_class: type, training, texts: int) -> Iterator[Callable[[object], None]]:
    """A trainer of this class made in here, and given to what this yields, folds its batches; with `training.share_prefixes` off it
    stays TRL's own. Its `token_count` says what that saves (None if nothing is shared); `texts` is the number of texts in a row.

    Most trainers give their models, the reference model too, TRL's fused output layer while they are made, and may compute reference
    log-probabilities right then: in here that layer comes with folding. The others are changed afterwards.
    """
    # Of a trainer of the user's own, that of the TRL trainer it is derived from.
    modules = [sys.modules[base.__module__] for base in trainer_class.__mro__]
    module = next((module for module in modules if hasattr(module, "add_fused_lm_head")), None)
    count = TokenCount(texts, stock_batch(training)) if training.share_prefixes else None
    settings = (training.tokens_per_tree, training.max_activation_tokens, training.tree_mask, count)

    def counted(trainer) -> None:
        trainer.token_count = count

    if not training.share_prefixes:
        yield counted
    elif module is not None:
        add_fused_lm_head = module.add_fused_lm_head

        def add_both(model, **options):
            add_fused_lm_head(model, **options)
            share_prefixes(model, *settings)

        with patch.object(module, "add_fused_lm_head", add_both):
            yield counted
    else:

        def share(trainer) -> None:
            counted(trainer)
            _share_in_logit_trainer(trainer, *settings)

        yield share


def _share_in_logit_trainer(trainer, *settings) -> None:
    """Folding for trainers (CPO with SimPO's loss, ORPO) that take log-probabilities from `model(...).logits`.

    They read log-probabilities of the responses, and ORPO the likelihood of the whole chosen row; the logits themselves go into two
    logged means, which are here over the scored positions and not over prompts and padding.
    """
    from peft import PeftModel
    from trl.trainer.utils import add_fused_lm_head

    model = trainer.model.get_base_model() if isinstance(trainer.model, PeftModel) else trainer.model
    add_fused_lm_head(model, outputs=_FIELDS)
    share_prefixes(model, *settings)
    trainer.concatenated_forward = MethodType(_concatenated_forward, trainer)


def _concatenated_forward(trainer, model, batch: dict):
    """(chosen log-probabilities, rejected ones, chosen logits, rejected logits, negative log-likelihood) as TRL's method returns.

    Log-probabilities, (pairs,), are means over the response where the loss asks for means. In place of logits stand their means over
    the vocabulary, at the scored positions.
    """
    rows = trainer.concatenated_inputs(
        batch, padding_value=trainer.processing_class.pad_token_id, device=trainer.accelerator.device
    )
    ids, attended = rows["concatenated_input_ids"], rows["concatenated_attention_mask"]
    in_response = rows["concatenated_labels"] != IGNORED
    pairs = len(batch["chosen_labels"])
    chosen = torch.arange(len(ids), device=ids.device)[:, None] < pairs
    # ORPO's likelihood is that of the whole chosen row, prompt and all; the others' only that of the chosen response.
    orpo = not hasattr(trainer, "cpo_alpha")
    liked = chosen & (attended.bool() if orpo else in_response)
    output = model(
        input_ids=ids,
        attention_mask=attended,
        labels=ids.masked_fill(~(in_response | liked), IGNORED),
        fused_lm_head=True,
        use_cache=False,
    )
    in_response, liked = in_response[:, 1:], liked[:, 1:]
    log_probs = (output.log_probs * in_response).sum(-1)
    if orpo or trainer.loss_type in ("ipo", "simpo"):
        log_probs = log_probs / in_response.sum(-1)
    likelihood = -output.log_probs[liked].mean() if orpo or trainer.cpo_alpha else log_probs.new_zeros(())
    logits = output.mean_logits
    return (
        log_probs[:pairs],
        log_probs[pairs:],
        logits[:pairs][in_response[:pairs]],
        logits[pairs:][in_response[pairs:]],
        likelihood,
    )
