"""The trainer of a training: the algorithm's own from TRL, with its model, its rows in their order, and what listens to it."""

from pathlib import Path

from cso_lab.training.backbone import device, load_weights, resolve_dtype
from cso_lab.training.launch import WORKERS

LOG = "train_log.jsonl"


def build_trainer(cfg, arguments, rows: list[dict], tokenizer, out: Path, start: Path | None):
    """The algorithm's trainer, with the model it trains, its rows and what it reports to."""
    import torch
    from datasets import Dataset
    from hydra.utils import instantiate
    from transformers import PrinterCallback, set_seed

    from cso_lab.training.batching import Epochs, TreeSampler, filled, tree_order
    from cso_lab.training.progress import StepLog, StepProgress
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
            callbacks=[StepLog(out / LOG), StepProgress(cfg.algorithm.label)],
            **adapter,
        )
        share(trainer)
    trainer.remove_callback(PrinterCallback)
    if drawn:
        sampler = TreeSampler(
            *_trees(rows), training.batch_size, training.seed, round_of_all if arguments.world_size > 1 else 1
        )
        trainer._get_train_sampler = lambda dataset=None: sampler
        trainer.add_callback(Epochs(sampler))
    return trainer


def _for_all(dataset, folder: Path, arguments):
    """The dataset from one place on disk, where all processes find what one of them computes of it (reference log-probabilities)."""
    from datasets import load_from_disk

    with arguments.main_process_first(local=False):
        if arguments.process_index == 0:
            dataset.save_to_disk(folder)
    return load_from_disk(folder)


def _trees(rows: list[dict]) -> tuple[list[str], list[str]]:
    return [row["dialogue"] for row in rows], [row["prompt"] for row in rows]
