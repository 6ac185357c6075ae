"""The trainer of a training: the algorithm's own from TRL, with its model, its rows in their order, and what listens to it."""

import math
from itertools import islice
from pathlib import Path
from random import Random

from cso_lab.training.backbone import device, load_weights, resolve_dtype
from cso_lab.training.launch import WORKERS

LOG = "train_log.jsonl"


def build_trainer(cfg, arguments, rows: list[dict], tokenizer, out: Path, start: Path | None):
    """The algorithm's trainer, with the model it trains, its rows and what it reports to."""
    import torch
    from datasets import Dataset
    from hydra.utils import instantiate
    from torch.utils.data import SequentialSampler
    from transformers import PrinterCallback, set_seed

    from cso_lab.training.batching import Epochs, TreeSampler, filled, tree_order
    from cso_lab.training.progress import StepLog, StepManifest, StepProgress
    from cso_lab.training.sharing import sharing

    mode, training = cfg.finetune_mode, cfg.training
    number_type = resolve_dtype(training.dtype, device(cfg))
    # An adapter is small and stays float32 on weights of `number_type`. In full training the float32 weights themselves are
    # what is stepped: at these learning rates most steps would vanish in bfloat16's rounding.
    weights_type = torch.float32 if mode.peft is None else number_type
    set_seed(training.seed)
    model = load_weights(cfg, start, weights_type)
    adapter = {} if mode.peft is None else {"peft_config": instantiate(mode.peft, _convert_="all")}
    if training.batching == "tree":
        # For trainers that compute reference log-probabilities before training, or read rows as they come.
        rows = [rows[i] for i in tree_order(*_trees(rows), training.batch_size, training.seed)]
    drawn = training.batching == "tree" and arguments.train_sampling_strategy == "random"
    round_of_all = arguments.per_device_train_batch_size * arguments.world_size
    steps = _steps(arguments, len(rows), training.batch_size)
    part = steps * training.batch_size < len(rows)
    if part:
        # Less than one pass: the other rows are neither tokenized nor read by the reference model. These come in the order in which
        # they would be drawn; where TRL would shuffle, any as likely as the others.
        if drawn:
            order = TreeSampler(*_trees(rows), training.batch_size, training.seed)
        elif training.batching == "random" and arguments.train_sampling_strategy == "random":
            order = Random(training.seed).sample(range(len(rows)), len(rows))
        else:
            order = range(len(rows))
        rows = [rows[i] for i in islice(order, steps * training.batch_size)]
        arguments.max_steps = steps
    if arguments.train_sampling_strategy != "random" and arguments.world_size > 1:
        rows = filled(rows, round_of_all)
    dataset = Dataset.from_list([{field: row[field] for field in row if field != "dialogue"} for row in rows])
    if arguments.world_size > 1:
        dataset = _for_all(dataset, out / WORKERS / "rows", arguments)

    make = instantiate(cfg.algorithm.trainer, _partial_=True)
    with sharing(make.func, training) as share:
        trainer = make(
            model=model,
            args=arguments,
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=[StepLog(out / LOG), StepManifest(), StepProgress(cfg.algorithm.label)],
            **adapter,
        )
        share(trainer)
    trainer.remove_callback(PrinterCallback)
    if cfg.hardware.deepspeed is not None:
        _keep_floats(trainer)
    if drawn and part:
        trainer._get_train_sampler = lambda dataset=None: SequentialSampler(trainer.train_dataset)
    elif drawn:
        sampler = TreeSampler(
            *_trees(rows), training.batch_size, training.seed, round_of_all if arguments.world_size > 1 else 1
        )
        trainer._get_train_sampler = lambda dataset=None: sampler
        trainer.add_callback(Epochs(sampler))
    return trainer


def _keep_floats(trainer) -> None:
    """With DeepSpeed a trainer casts the floats of a batch to the weights' type. They are reference log-probabilities: in bfloat16 one of
    some -400 is off by up to 1, and so would be the margin that beta multiplies."""
    prepare = trainer._prepare_inputs

    def prepare_inputs(inputs: dict) -> dict:
        floats = {name: value for name, value in inputs.items() if hasattr(value, "dtype") and value.is_floating_point()}
        return {**prepare(inputs), **{name: value.to(trainer.args.device) for name, value in floats.items()}}

    trainer._prepare_inputs = prepare_inputs


def _steps(arguments, rows: int, batch_size: int) -> int:
    """Optimizer steps of the training, as the trainers count them; an epoch's last, partial step is one."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    return math.ceil(arguments.num_train_epochs * math.ceil(rows / batch_size))


def _for_all(dataset, folder: Path, arguments):
    """The dataset from one place on disk, where all processes find what one of them computes of it (reference log-probabilities)."""
    from datasets import load_from_disk

    with arguments.main_process_first(local=False):
        if arguments.process_index == 0:
            dataset.save_to_disk(folder)
    return load_from_disk(folder)


def _trees(rows: list[dict]) -> tuple[list[str], list[str]]:
    return [row["dialogue"] for row in rows], [row["prompt"] for row in rows]
