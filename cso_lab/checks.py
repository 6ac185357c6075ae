"""Impossible values, found before any work starts."""

from typing import Annotated, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import Field, TypeAdapter, ValidationError

from cso_lab.errors import UserError, unknown
from cso_lab.naming import trains
from cso_lab.strategies import strategy_set

STAGES = ("search", "dataset", "train", "generate", "evaluate", "report")

Count = Annotated[int, Field(ge=1, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Flag = Annotated[bool, Field(strict=True)]
Dtype = Literal["auto", "bfloat16", "float32"]

RULES = {
    "seed": Natural,
    "rerun": Flag,
    "estimate": Flag,
    "data.test_share": Share,
    "data.split_seed": Natural,
    "data.seed_dialogues": Count | None,
    "roles.max_concurrency": Count,
    "roles.timeout": Positive,
    "roles.attempts": Count,
    "roles.longest_pause": NotNegative,
    "roles.requests_per_minute": Positive | None,
    "roles.tokens_per_minute": Positive | None,
    "roles.budget.calls": Natural | None,
    "roles.budget.tokens": Natural | None,
    "roles.budget.dollars": NotNegative | None,
    "mcts.c": NotNegative,
    "mcts.prior_temperature": Positive,
    "mcts.gold_visits": Count,
    "mcts.gold_prior": Annotated[float, Field(gt=0, lt=1)],
    "mcts.rollout_rounds": Natural,
    "mcts.min_iterations": Natural,
    "mcts.max_iterations": Natural,
    "mcts.min_ends": Natural,
    "mcts.max_ends": Count,
    "mcts.memory": Flag,
    "mcts.speculation": Natural,
    "mcts.leaves_per_wave": Count,
    "mcts.extend_negatives": Flag,
    "preferences.theta": float,
    "preferences.min_end_visits": Natural,
    "algorithm.start_from": Literal["base", "sft"],
    "training.learning_rate": Positive,
    "training.num_train_epochs": Positive,
    "training.batch_size": Count,
    "training.per_device_batch_size": Count | None,
    "training.share_prefixes": Flag,
    "training.batching": Literal["tree", "random"],
    "training.tokens_per_tree": Count,
    "training.kept_tokens": Count,
    "training.max_steps": Annotated[int, Field(ge=-1, strict=True)],
    "training.max_target_length": Count,
    "training.max_prompt_length": Count,
    "training.warmup_ratio": Share,
    "training.weight_decay": NotNegative,
    "training.max_grad_norm": Positive,
    "training.gradient_checkpointing": Literal["auto", True, False],
    "training.dtype": Dtype,
    "training.max_rows": Count | None,
    "training.save_steps": Count,
    "training.logging_steps": Count,
    "generation.max_new_tokens": Count,
    "generation.batch_size": Count,
    "generation.temperature": NotNegative,
    "generation.max_prompt_length": Count,
    "generation.constrain": Literal["none", "format"],
    "generation.max_turns": Count | None,
    "generation.dtype": Dtype,
    "hardware.device": Literal["auto", "cpu", "cuda"],
    "hardware.processes": Count,
}


def check(cfg: DictConfig) -> None:
    """A UserError names the first key whose value cannot work, with what would."""
    for stage in cfg.stages:
        if stage not in STAGES:
            raise unknown("stage", stage, STAGES)
    for key, rule in RULES.items():
        value = OmegaConf.select(cfg, key)
        try:
            TypeAdapter(rule).validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]["msg"].replace("Input should be", "should be")
            raise UserError(f"{key}={value}: {problem}") from None
    if cfg.mcts.min_iterations > cfg.mcts.max_iterations:
        raise UserError(f"mcts.min_iterations={cfg.mcts.min_iterations} is above mcts.max_iterations={cfg.mcts.max_iterations}")
    strategy_set(cfg.data.strategies)
    _check_data(cfg)
    if "search" in cfg.stages and trains(cfg):
        _check_roles(cfg)


def _check_data(cfg: DictConfig) -> None:
    from cso_lab.corpora import data_file, shard

    data_file(cfg.data)
    shard((), cfg.data.shard)


def _check_roles(cfg: DictConfig) -> None:
    for key in ("api_base", *(f"{role}.model" for role in ("seeker", "supporter", "strategist", "judge"))):
        node, _, leaf = f"roles.{key}".rpartition(".")
        if OmegaConf.is_missing(OmegaConf.select(cfg, node), leaf):
            raise UserError(f"roles={cfg.roles.name} needs roles.{key}: give roles.{key}=VALUE")
