"""The same training whatever the number of processes: all rows of an optimizer step count alike in its loss.

A trainer takes the mean over the rows of every forward pass, then over the passes of a step and over processes. Where they have different
numbers of rows, as in an epoch's last step, a row of a small pass would count more than one of a large pass.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from unittest.mock import patch

import torch

from cso_lab.training.prefix_forest import IGNORED
from cso_lab.training.samplers import Layout
from cso_lab.training.shared_forward import likelihood_covers_prompt

_SFT = "sft"  # the name of SFT's loss among those of TRL's DPO trainer


@dataclass(frozen=True)
class _Pass:
    """What is to be known of one forward pass of this process.

    `sizes` are the numbers of rows of all processes in it. `loss` is what its loss is multiplied by, `likelihood` what the likelihood
    term in that loss (ORPO's, or SFT's beside DPO's) is, so that the term is a mean over the tokens of the step, and `kl` what the KL term
    (KTO's) is, so that the term is a mean over the rows of all processes.
    """

    sizes: Sequence[int]
    loss: float
    likelihood: float
    kl: float


class RowWeights:
    """Makes a trainer weigh the rows of every optimizer step alike; `layout` says how they are shared out."""

    def __init__(self, trainer, layout: Layout):
        self.trainer, self.layout = trainer, layout
        # the passes of the step in progress that are still to come, and the one that is computed
        self.passes: deque[_Pass] = deque()
        self.current: _Pass | None = None
        self._count_items, trainer._get_num_items_in_batch = trainer._get_num_items_in_batch, self.begin_step
        self._compute_loss, trainer.compute_loss = trainer.compute_loss, self.compute_loss
        self._has_likelihood = self._sft_beside_dpo = _SFT in getattr(trainer, "loss_types", ())
        if self._sft_beside_dpo:
            self._loss_weights = dict(zip(trainer.loss_types, trainer.loss_weights, strict=True))
        elif hasattr(trainer, "concatenated_forward"):
            self._has_likelihood = likelihood_covers_prompt(trainer) or bool(trainer.cpo_alpha)
        if self._has_likelihood and not self._sft_beside_dpo:
            self._forward, trainer.concatenated_forward = trainer.concatenated_forward, self.concatenated_forward
        if hasattr(trainer, "_compute_kl_logps"):
            self._kl_log_probs, trainer._compute_kl_logps = trainer._compute_kl_logps, self.kl_log_probs

    def begin_step(self, batches: list[dict], device: torch.device) -> torch.Tensor | int | None:
        """Returns what the trainer's own method returns, the number of the step's labels if its loss is divided by it, else None.

        Called by the trainer with the batches of all passes of a step, before the first of them.
        """
        step, process = self.layout.step(self.trainer.state.global_step), self.trainer.args.process_index
        own = [sizes[process] for sizes in step]
        items = self._count_items([_counted(batch, size) for batch, size in zip(batches, own, strict=True)], device)
        rows = sum(map(sum, step))
        tokens = [self._likelihood_tokens(batch) if size else 0 for batch, size in zip(batches, own, strict=True)]
        all_tokens = sum(tokens)
        if self._has_likelihood and self.layout.processes > 1:
            all_tokens = self.trainer.accelerator.reduce(torch.tensor(all_tokens, device=device), "sum").item()
        self.passes = deque(
            _Pass(
                sizes=sizes,
                # a loss divided by the step's labels needs no weight, but that of a row which counts nothing
                loss=size * self.layout.processes * len(step) / rows if items is None else float(size > 0),
                likelihood=count * rows / (all_tokens * size) if count else 0.0,
                kl=size * self.layout.processes / sum(sizes),
            )
            for sizes, size, count in zip(step, own, tokens, strict=True)
        )
        return items

    def compute_loss(self, model, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        """Returns the trainer's own loss, weighted if it is that of a pass of a step."""
        if return_outputs or not self.passes:
            return self._compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.current = self.passes.popleft()
        if "ref_KL_logps" in inputs:
            inputs = {**inputs, "ref_KL_logps": inputs["ref_KL_logps"] * self.current.kl}
        if self._sft_beside_dpo:
            weights = self._loss_weights | {_SFT: self._loss_weights[_SFT] * self.current.likelihood}
            self.trainer.loss_weights = list(weights.values())
        try:
            with self._gathering_real_rows():
                return self._compute_loss(model, inputs, num_items_in_batch=num_items_in_batch) * self.current.loss
        finally:
            self.current = None

    def concatenated_forward(self, model, batch: dict) -> tuple:
        """Returns what TRL's method returns, the negative log-likelihood (the fifth value) weighted by its tokens."""
        outputs = self._forward(model, batch)
        return outputs if self.current is None else (*outputs[:4], outputs[4] * self.current.likelihood, *outputs[5:])

    def kl_log_probs(self, model, batch: dict) -> torch.Tensor | None:
        """Returns what TRL's method returns, weighted by the process's rows, since TRL takes the mean over processes."""
        log_probs = self._kl_log_probs(model, batch)
        return log_probs if log_probs is None or self.current is None else log_probs * self.current.kl

    def _likelihood_tokens(self, batch: dict) -> int:
        """Returns the number of tokens in the batch's likelihood term, 0 if there is none; a row's first token is never scored."""
        if not self._has_likelihood:
            return 0
        if self._sft_beside_dpo:
            scored = batch["completion_mask"].chunk(2)[0]
        elif likelihood_covers_prompt(self.trainer):
            scored = batch["chosen_attention_mask"]
        else:
            scored = batch["chosen_labels"] != IGNORED
        return int(scored[:, 1:].sum())

    def _gathering_real_rows(self):
        """Returns a context in which tensors of rows are gathered for the log although processes have different numbers of them."""
        sizes, gather = self.current.sizes, self.trainer.accelerator.gather
        if len(set(sizes)) == 1:
            return nullcontext()

        def gather_rows(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.ndim == 0:
                return gather(tensor)
            padded = torch.cat([tensor, tensor.new_zeros(max(sizes) - len(tensor), *tensor.shape[1:])])
            return torch.cat([part[:size] for part, size in zip(gather(padded).split(max(sizes)), sizes, strict=True)])

        return patch.object(self.trainer.accelerator, "gather", gather_rows)


def _counted(batch: dict, size: int) -> dict:
    """Returns the batch, without labels if it has no row that counts."""
    return batch if size or "labels" not in batch else {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}


@contextmanager
def kl_pairs_of(trainer_class: type, layout: Layout) -> Iterator[None]:
    """A context in which a KTO trainer pairs prompts and responses for its KL term as one process would that takes all rows of a pass.

    TRL pairs those of `per_device_train_batch_size` rows, which are fewer the more processes there are.
    """
    prepare = getattr(trainer_class, "_prepare_dataset", None)
    if layout.processes == 1 or prepare is None:
        yield
        return

    def prepare_dataset(self, dataset, processing_class, args, *rest):
        with patch.object(args, "per_device_train_batch_size", layout.part_size * layout.processes):
            return prepare(self, dataset, processing_class, args, *rest)

    with patch.object(trainer_class, "_prepare_dataset", prepare_dataset):
        yield
