"""The trainer of a training: the algorithm's own from TRL, with its model, its rows in their order, and what listens to it."""

import math
from itertools import islice
from pathlib import Path
from random import Random

from cso_lab.training.backbone import device, load_weights, resolve_dtype
from cso_lab.training.launch import WORKERS
from cso_lab.training.rows import RESPONSES

LOG = "train_log.jsonl"


def build_trainer(cfg, arguments, rows: list[dict], tokenizer, out: Path, start: Path | None):
    """The algorithm's trainer, with the model it trains, its rows and what it reports to."""
    import torch
    from datasets import Dataset
    from hydra.utils import instantiate
    from transformers import PrinterCallback, set_seed

    from cso_lab.training.callbacks import StepLog, StepManifest, StepProgress
    from cso_lab.training.samplers import SetEpochCallback, TreeSampler
    from cso_lab.training.shared_forward import sharing

    mode, training = cfg.finetune_mode, cfg.training
    number_type = resolve_dtype(training.dtype, device(cfg))
    # An adapter is small and stays float32 on weights of `number_type`. In full training the float32 weights themselves are
    # what is stepped: at these learning rates most steps would vanish in bfloat16's rounding.
    weights_type = torch.float32 if mode.peft is None else number_type
    set_seed(training.seed)
    model = load_weights(cfg, start, weights_type)
    adapter = {} if mode.peft is None else {"peft_config": instantiate(mode.peft, _convert_="all")}
    rows, sampler = _in_order(rows, training, arguments)
    dataset = Dataset.from_list([{field: row[field] for field in row if field != "dialogue"} for row in rows])
    if arguments.world_size > 1:
        dataset = _for_all(dataset, out / WORKERS / "rows", arguments)

    make = instantiate(cfg.algorithm.trainer, _partial_=True)
    with sharing(make.func, training, texts=sum(field in rows[0] for field in RESPONSES)) as share:
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
    if sampler is not None:
        trainer._get_train_sampler = lambda dataset=None: sampler
    if isinstance(sampler, TreeSampler):
        trainer.add_callback(SetEpochCallback(sampler))
    return trainer


def _in_order(rows: list[dict], training, arguments) -> tuple:
    """(rows as the dataset holds them, the order in which they are drawn; None: the trainer's own).

    Sets `arguments.max_steps` where that is less than one pass: the other rows are neither tokenized nor read by the reference model.
    """
    from cso_lab.training.samplers import Dealer, TreeSampler, pad_to_multiple, tree_order

    tree, drawn = training.batching == "tree", arguments.train_sampling_strategy == "random"
    at_once = arguments.per_device_train_batch_size
    whole = at_once * arguments.world_size if arguments.world_size > 1 else 1
    if tree:
        # For trainers that compute reference log-probabilities before training, or read rows as they come.
        rows = [rows[i] for i in tree_order(*_trees(rows), training.batch_size, training.seed)]
    steps = _steps(arguments, len(rows), training.batch_size)
    part = steps * training.batch_size < len(rows)
    if part:
        # These come in the order in which they would be drawn; where TRL would shuffle, any as likely as the others.
        if tree and drawn:
            order = TreeSampler(*_trees(rows), training.batch_size, training.seed)
        elif drawn:
            order = Random(training.seed).sample(range(len(rows)), len(rows))
        else:
            order = range(len(rows))
        rows = [rows[i] for i in islice(order, steps * training.batch_size)]
        arguments.max_steps = steps
    if not drawn:
        rows = pad_to_multiple(rows, whole)
    if not tree:
        return rows, None
    deal = Dealer(rows, training.batch_size, at_once)
    order = deal(range(len(rows)))
    if "label" in rows[0] and not drawn:
        # KTO's trainer gives a row the response of its neighbour in the dataset, which is to be of another dialogue.
        return rows, order
    # The reference model reads the rows in the dataset's order, so that they are dealt there as well.
    dealt = [rows[i] for i in order]
    if part or not drawn:
        return dealt, range(len(dealt))
    position = {row: place for place, row in enumerate(order)}
    return dealt, TreeSampler(*_trees(rows), training.batch_size, training.seed, whole, deal, position)


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
