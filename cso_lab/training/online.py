"""Builds the trainer of an algorithm that learns from replies of the model in training (GRPO), scored by rewards."""

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cso_lab.core.errors import UserError
from cso_lab.core.strategies import strategy_set
from cso_lab.training.backbone import template_variables

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

# The folder below the cell's own with the judge's journal, one for each process.
JUDGE = "judge"


def check_groups(cfg: DictConfig) -> None:
    """Raises UserError if the replies of a step cannot be divided into groups, or if the weights are split among processes."""
    groups, size = cfg.training.batch_size, cfg.algorithm.num_generations
    if size < 2 or groups % size:
        raise UserError(
            f"training.batch_size={groups} counts replies and is no multiple of algorithm.num_generations={size}, those of a prompt (at"
            " least 2): choose one that is"
        )
    if cfg.hardware.deepspeed is not None:
        raise UserError(
            f"algo={cfg.algorithm.name} writes replies with whole weights: use hardware=ddp, auto, gpu or cpu, not DeepSpeed"
        )


def online_trainer(
    cfg: DictConfig,
    arguments: "TrainingArguments",
    rows: list[dict],
    tokenizer: "PreTrainedTokenizerBase",
    out: Path,
    **settings,
) -> "Trainer":
    """Returns the algorithm's trainer, ready to train on `rows` (as `fit_rows` returns them); `settings` are further arguments of it.

    Raises UserError if there are fewer prompts than a step takes.
    """
    from datasets import Dataset
    from hydra.utils import instantiate
    from transformers import PrinterCallback

    from cso_lab.training.chat_format import ChatFormat
    from cso_lab.training.rewards.reward_functions import reward_functions, used_rewards
    from cso_lab.training.samplers import SetEpochCallback
    from cso_lab.training.shared_forward import sharing

    check_groups(cfg)
    prompts_a_step = cfg.training.batch_size // cfg.algorithm.num_generations
    if len(rows) < prompts_a_step:
        raise UserError(
            f"there are {len(rows)} prompts, and a step takes {prompts_a_step} (training.batch_size / algorithm.num_generations): lower"
            " training.batch_size, or search more dialogues"
        )
    strategies, chat = strategy_set(cfg.data.strategies), ChatFormat(tokenizer, template_variables(cfg))
    arguments.reward_weights = list(used_rewards(cfg.algorithm).values())
    journals = out / JUDGE / str(arguments.process_index)
    trainer_class = instantiate(cfg.algorithm.trainer, _partial_=True)
    with sharing(trainer_class.func, cfg.training, texts=1) as share_prefixes_of:
        trainer = trainer_class(
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": row["prompt"], "row": index} for index, row in enumerate(rows)]),
            processing_class=tokenizer,
            reward_funcs=reward_functions(cfg, [row["row"] for row in rows], strategies, journals),
            rollout_func=instantiate(cfg.algorithm.rollouts, _partial_=True)(chat=chat, strategies=strategies),
            **settings,
        )
        share_prefixes_of(trainer)
    trainer.remove_callback(PrinterCallback)
    sampler = trainer._get_train_sampler()
    # TRL's sampler goes on with its generator from epoch to epoch, which a resumed training would begin anew.
    sampler.set_epoch = lambda epoch: sampler.generator.manual_seed(cfg.training.seed + epoch)
    trainer._get_train_sampler = lambda dataset=None: sampler
    trainer.add_callback(SetEpochCallback(sampler))
    return trainer
