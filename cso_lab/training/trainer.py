"""Builds the algorithm's TRL trainer with its model, its rows in training order, and its callbacks."""

import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cso_lab.training.backbone import device, load_base, resolve_dtype
from cso_lab.training.processes import WORKERS
from cso_lab.training.quantization import is_quantized, set_dtypes
from cso_lab.training.rows import PROMPTS, RESPONSES

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

    from cso_lab.training.samplers import Layout

LOG = "train_log.jsonl"


def build_trainer(
    cfg: DictConfig,
    arguments: "TrainingArguments",
    rows: list[dict],
    tokenizer: "PreTrainedTokenizerBase",
    out: Path,
    start: Path | None,
) -> "Trainer":
    """Returns the algorithm's trainer, ready to train on `rows` (as `fit_rows` returns them).

    `start` is the checkpoint to start from, None for the backbone itself; the log of steps goes to `out`.
    """
    import torch
    from datasets import Dataset
    from hydra.utils import instantiate
    from transformers import PrinterCallback, set_seed

    from cso_lab.training.callbacks import StepLog, StepManifest, StepProgress
    from cso_lab.training.row_weights import RowWeights, kl_pairs_of
    from cso_lab.training.samplers import Layout, SetEpochCallback, TreeSampler
    from cso_lab.training.shared_forward import sharing

    mode, training = cfg.finetune_mode, cfg.training
    torch_dtype = resolve_dtype(training.dtype, device(cfg))
    # An adapter is small and stays float32 on weights of `torch_dtype`. In full training the optimizer updates float32 weights: at these
    # learning rates bfloat16's rounding would lose most updates.
    weights_dtype = torch.float32 if mode.peft is None else torch_dtype
    set_seed(training.seed)
    model = load_base(cfg, start, weights_dtype)
    adapter = {} if mode.peft is None else {"peft_config": instantiate(mode.peft, _convert_="all")}
    if cfg.algorithm.rows == PROMPTS:
        from cso_lab.training.online import online_trainer

        callbacks = [StepLog(out / LOG), StepManifest(), StepProgress(cfg.algorithm.label)]
        trainer = online_trainer(cfg, arguments, rows, tokenizer, out, model=model, callbacks=callbacks, **adapter)
        if is_quantized(cfg):
            set_dtypes(trainer.model, torch_dtype)
        return trainer
    rows, sampler = _order_rows(rows, training, arguments)
    layout = Layout(len(rows), training.batch_size, arguments.per_device_train_batch_size, arguments.world_size)
    dataset = Dataset.from_list([{field: row[field] for field in row if field != "dialogue"} for row in rows])
    if arguments.world_size > 1:
        dataset = _shared_on_disk(dataset, out / WORKERS / "rows", arguments)

    trainer_class = instantiate(cfg.algorithm.trainer, _partial_=True)
    texts = sum(field in rows[0] for field in RESPONSES)
    with sharing(trainer_class.func, training, texts) as share_prefixes_of, kl_pairs_of(trainer_class.func, layout):
        trainer = trainer_class(
            model=model,
            args=arguments,
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=[StepLog(out / LOG), StepManifest(), StepProgress(cfg.algorithm.label)],
            **adapter,
        )
        share_prefixes_of(trainer)
    if is_quantized(cfg):
        set_dtypes(trainer.model, torch_dtype)
    trainer.remove_callback(PrinterCallback)
    if cfg.hardware.deepspeed is not None:
        _keep_float_inputs(trainer)
    if sampler is not None:
        trainer._get_train_sampler = lambda dataset=None: sampler
    _draw_parts(trainer, layout)
    RowWeights(trainer, layout)
    if isinstance(sampler, TreeSampler):
        trainer.add_callback(SetEpochCallback(sampler))
    return trainer


def _order_rows(
    rows: list[dict], training: DictConfig, arguments: "TrainingArguments"
) -> tuple[list[dict], Iterable[int] | None]:
    """Returns the rows in the dataset's order, and the order in which a training draws them (None: the trainer's own order).

    If the training has less than one epoch, only the rows it draws are kept, so that the others are neither tokenized nor read by the
    reference model, and `arguments.max_steps` is set.
    """
    from cso_lab.training.samplers import Layout, Partitioner, TreeSampler, tree_order

    by_tree, shuffled = training.batching == "tree", arguments.train_sampling_strategy == "random"
    if by_tree:
        # Trainers that compute reference log-probabilities before training, or that read rows in the given order, need it here already.
        rows = [rows[i] for i in tree_order(*_dialogues_and_prompts(rows), training.batch_size, training.seed)]
    steps = _steps(arguments, len(rows), training.batch_size)
    below_one_epoch = steps * training.batch_size < len(rows)
    if below_one_epoch:
        # The first rows in the order in which a whole epoch would draw them; if TRL would shuffle, a random sample.
        if by_tree and shuffled:
            order = TreeSampler(*_dialogues_and_prompts(rows), training.batch_size, training.seed)
        elif shuffled:
            order = Random(training.seed).sample(range(len(rows)), len(rows))
        else:
            order = range(len(rows))
        rows = [rows[i] for i in islice(order, steps * training.batch_size)]
        arguments.max_steps = steps
    if not by_tree:
        return rows, None
    layout = Layout(len(rows), training.batch_size, arguments.per_device_train_batch_size, arguments.world_size)
    partition = Partitioner(rows, layout)
    order = partition(range(len(rows)))
    if "label" in rows[0] and not shuffled:
        # KTO's trainer pairs a row with the response of its neighbour in the dataset, which has to be of another dialogue.
        return rows, order
    # The reference model reads the rows in the dataset's order: partitioned there as well, its batches share prefixes too.
    partitioned = [rows[i] for i in order]
    if below_one_epoch or not shuffled:
        return partitioned, range(len(partitioned))
    position = {row: index for index, row in enumerate(order)}
    sampler = TreeSampler(*_dialogues_and_prompts(rows), training.batch_size, training.seed, partition, position)
    return partitioned, sampler


def _draw_parts(trainer: "Trainer", layout: "Layout") -> None:
    """Makes the trainer draw its rows in the parts of a layout, whose sizes differ in an epoch's last step."""
    from torch.utils.data import DataLoader

    from cso_lab.training.samplers import PartSampler

    def get_train_dataloader() -> DataLoader:
        arguments, dataset = trainer.args, trainer._remove_unused_columns(trainer.train_dataset, description="Training")
        loader = DataLoader(
            dataset,
            batch_sampler=PartSampler(trainer._get_train_sampler(dataset), layout),
            collate_fn=trainer.data_collator,
            num_workers=arguments.dataloader_num_workers,
            pin_memory=arguments.dataloader_pin_memory,
        )
        return trainer.accelerator.prepare(loader)

    trainer.get_train_dataloader = get_train_dataloader


def _keep_float_inputs(trainer: "Trainer") -> None:
    """Keeps float inputs float32 under DeepSpeed, where a trainer casts them to the weights' type.

    They are reference log-probabilities: in bfloat16 one of about -400 is off by up to 1, and so is the margin that beta multiplies.
    """
    prepare = trainer._prepare_inputs

    def prepare_inputs(inputs: dict) -> dict:
        floats = {name: value for name, value in inputs.items() if hasattr(value, "dtype") and value.is_floating_point()}
        return {**prepare(inputs), **{name: value.to(trainer.args.device) for name, value in floats.items()}}

    trainer._prepare_inputs = prepare_inputs


def _steps(arguments: "TrainingArguments", rows: int, batch_size: int) -> int:
    """Returns the number of optimizer steps as the trainers count them; the partial step at an epoch's end counts as one."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    return math.ceil(arguments.num_train_epochs * math.ceil(rows / batch_size))


def _shared_on_disk(dataset: "Dataset", folder: Path, arguments: "TrainingArguments") -> "Dataset":
    """Returns the dataset loaded from `folder`, beside which all processes find what one of them caches (reference log-probabilities)."""
    from datasets import load_from_disk

    with arguments.main_process_first(local=False):
        if arguments.process_index == 0:
            dataset.save_to_disk(folder)
    return load_from_disk(folder)


def _dialogues_and_prompts(rows: list[dict]) -> tuple[list[str], list[str]]:
    return [row["dialogue"] for row in rows], [row["prompt"] for row in rows]
