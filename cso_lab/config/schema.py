"""Which values every key of the configuration may have."""

from collections.abc import Mapping
from typing import Annotated, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from cso_lab.config.clients import Count, Limits, Natural, Roles, ServedClient, Temperature, check_node, problem
from cso_lab.core.errors import UserError
from cso_lab.core.published import table_names

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Flag = Annotated[bool, Field(strict=True)]
Dtype = Literal["auto", "bfloat16", "float32"]

RULES = {
    "seed": Natural,
    "rerun": Flag,
    "estimate": Flag,
    "debug": Flag,
    "report.folder": str | None,
    "report.table": Annotated[
        Literal[table_names()] | None, BeforeValidator(lambda table: table if table is None else str(table))
    ],
    "data.test_share": Share,
    "data.split_seed": Natural,
    "data.seed_dialogues": Count | None,
    "inspection.words": Count,
    "inspection.similarity": Annotated[float, Field(gt=0, le=1)],
    "inspection.shortest": Natural,
    "mcts.c": NotNegative,
    "mcts.prior_temperature": Positive,
    "mcts.gold_visits": Count,
    "mcts.gold_prior": Annotated[float, Field(gt=0, lt=1)],
    "mcts.rollout_rounds": Natural,
    "mcts.min_iterations": Natural,
    "mcts.max_iterations": Natural,
    "mcts.min_ends": Natural,
    "mcts.max_ends": Count,
    "mcts.cache_replies": Flag,
    "mcts.speculation": Natural,
    "mcts.leaf_batch_size": Count,
    "mcts.extend_negatives": Flag,
    "preferences.theta": float,
    "preferences.min_end_visits": Natural,
    "preferences.dialogues": Natural | None,
    "preferences.seed": Natural,
    "training.learning_rate": Positive,
    "training.num_train_epochs": Positive,
    "training.batch_size": Count,
    "training.per_device_batch_size": Count | None,
    "training.share_prefixes": Flag,
    "training.batching": Literal["tree", "random"],
    "training.tokens_per_tree": Count,
    "training.tree_mask": Literal["auto", "blocks", "dense", "flex"],
    "training.max_activation_tokens": Count,
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
    "generation.engine": Literal["local", "server"],
    "generation.max_new_tokens": Count | None,
    "generation.batch_size": Count,
    "generation.temperature": Temperature | None,
    "generation.max_prompt_length": Count,
    "generation.constrain": Literal["none", "format"],
    "generation.max_turns": Count | None,
    "generation.dtype": Dtype,
    "evaluation.testset": Literal["turns", "strategy"],
    "evaluation.testset_seed": Natural,
    "evaluation.shortest": Count,
    "evaluation.longest": Count,
    "evaluation.cuts": Annotated[int, Field(ge=2, strict=True)],
    "hardware.device": Literal["auto", "cpu", "cuda"],
    "hardware.processes": Count,
    "hardware.nodes": Count,
}

# Of the scorers of toxicity that have such keys.
_SCORER = {"temperature": Temperature | None, "max_tokens": Count | None, "language": str}

# Of the trackers that have such keys.
_TRACKING = {
    "mode": Literal["auto", "online", "offline"],
    "project": Annotated[str, Field(min_length=1)],
    "entity": str | None,
    "group": str | None,
    "tags": list[str],
    "log_artifacts": Flag,
    "files_up_to_mb": NotNegative | None,
    "prediction_rows": Natural | None,
}


def check_schema(cfg: DictConfig) -> None:
    """Raises UserError, which names the first key whose value alone cannot work, with what would."""
    check_node(cfg, "roles", Roles)
    check_node(cfg, "generation.client", ServedClient)
    # Not every scorer of toxicity is asked over a client, and only a tracker that shows something has settings.
    if "client" in cfg.toxicity:
        check_node(cfg, "toxicity.client", Limits)
    scorer = {f"toxicity.{key}": rule for key, rule in _SCORER.items() if key in cfg.toxicity}
    tracking = {f"tracking.{key}": rule for key, rule in _TRACKING.items() if key in cfg.tracking}
    check_values(cfg, RULES | scorer | tracking)


def check_training(cfg: DictConfig) -> None:
    """Raises UserError as `check_schema` does, for the keys of a training alone."""
    check_values(cfg, {key: rule for key, rule in RULES.items() if key.startswith("training.")})


def check_values(cfg: DictConfig, rules: Mapping[str, object]) -> None:
    """A UserError names the first of these keys whose value alone cannot work, with what would."""
    for key, rule in rules.items():
        value = OmegaConf.select(cfg, key)
        try:
            TypeAdapter(rule).validate_python(
                OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            )
        except ValidationError as error:
            raise UserError(f"{key}={value}: {problem(error, rule)}") from None
