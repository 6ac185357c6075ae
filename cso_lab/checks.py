"""Impossible values, found before any work starts."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from cso_lab.config.clients import Count, Limits, Natural, Roles, ServedClient, Temperature, check_node, problem
from cso_lab.core.published import table_names
from cso_lab.errors import UserError, unknown
from cso_lab.pipeline.settings import is_api, start_of, trains, trains_here
from cso_lab.strategies import strategy_set

STAGES = ("search", "dataset", "inspect", "train", "generate", "evaluate", "report")

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
    "mcts.memory": Flag,
    "mcts.speculation": Natural,
    "mcts.leaves_per_wave": Count,
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


def check(cfg: DictConfig) -> None:
    """A UserError names the first key whose value cannot work, with what would."""
    for stage in cfg.stages:
        if stage not in STAGES:
            raise unknown("stage", stage, STAGES)
    check_node(cfg, "roles", Roles)
    check_node(cfg, "generation.client", ServedClient)
    # Not every scorer of toxicity is asked over a client, and only a tracker that shows something has settings.
    if "client" in cfg.toxicity:
        check_node(cfg, "toxicity.client", Limits)
    scorer = {f"toxicity.{key}": rule for key, rule in _SCORER.items() if key in cfg.toxicity}
    tracking = {f"tracking.{key}": rule for key, rule in _TRACKING.items() if key in cfg.tracking}
    check_values(cfg, RULES | scorer | tracking)
    if cfg.report.folder and list(cfg.stages) != ["report"]:
        raise UserError(f"report.folder={cfg.report.folder} reports on finished runs: give 'stages=[report]' with it")
    if cfg.mcts.min_iterations > cfg.mcts.max_iterations:
        raise UserError(f"mcts.min_iterations={cfg.mcts.min_iterations} is above mcts.max_iterations={cfg.mcts.max_iterations}")
    if cfg.evaluation.shortest > cfg.evaluation.longest:
        raise UserError(f"evaluation.shortest={cfg.evaluation.shortest} is above evaluation.longest={cfg.evaluation.longest}")
    strategy_set(cfg.data.strategies)
    _check_classes(cfg)
    _check_data(cfg)
    _check_engine(cfg)
    searches = "search" in cfg.stages and not cfg.data.get("expanded")
    if trains_here(cfg) and (searches or ("dataset" in cfg.stages and cfg.preferences.negatives is not None)):
        _check_roles(cfg)
    if "inspect" in cfg.stages and cfg.toxicity.get("model", "") is None:
        raise UserError(f"toxicity={cfg.toxicity.name} needs its model: give toxicity.model=PROVIDER/NAME")
    if trains(cfg) and cfg.preferences.dialogues == 0:
        raise UserError("preferences.dialogues=0 leaves nothing to train on: with no dialogue it is the base model, algo=base")
    if trains(cfg):
        _check_start(cfg)
    if "train" in cfg.stages and trains_here(cfg):
        _check_shares(cfg)
        _check_tree_mask(cfg)


def _check_start(cfg: DictConfig) -> None:
    """What the algorithm starts from: a training like any other, whose values stand below algorithm.start."""
    before = start_of(cfg)
    if before is None:
        return
    name = before.algorithm.name
    if not trains(before):
        raise UserError(f"algorithm.start ({name}) trains nothing: give algorithm.start=null to start from the backbone")
    try:
        check_values(before, {key: rule for key, rule in RULES.items() if key.startswith("training.")})
        if "train" in cfg.stages and trains_here(cfg):
            _check_shares(before)
        _check_start(before)
    except UserError as error:
        raise UserError(f"algorithm.start ({name}): {error}") from None


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


def _check_classes(cfg: DictConfig) -> None:
    """Raises UserError if a class that a stage to be run names by `_target_` cannot be found, or not be made with its settings."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from cso_lab.explain import explain

    used = {"dataset": ("preferences.builder", "preferences.negatives"), "generate": ("decoding.method",)}
    try:
        instantiate(cfg.mcts.reward)
        for key in [key for stage in cfg.stages for key in used.get(stage, ())]:
            if node := OmegaConf.select(cfg, key):
                # Not made yet: a class of the user's may load a model.
                _check_arguments(key, instantiate(node, _partial_=True))
        if "search" in cfg.stages:
            instantiate(cfg.mcts.search, _partial_=True)
    except InstantiationException as error:
        raise explain(error) from error


def _check_arguments(key: str, deferred: partial) -> None:
    try:
        inspect.signature(deferred.func).bind(*deferred.args, **deferred.keywords)
    except TypeError as error:
        raise UserError(f"{key}: {deferred.func.__module__}.{deferred.func.__qualname__}: {error}") from error
    except ValueError:
        pass  # a callable that does not say what it takes


def _check_data(cfg: DictConfig) -> None:
    from cso_lab.corpora import corpus_strategies, data_source, shard, test_source

    data_source(cfg.data)
    test_source(cfg.data)
    corpus_strategies(cfg.data)
    shard((), cfg.data.shard)


def _check_engine(cfg: DictConfig) -> None:
    """What a server cannot do, and what it takes to ask one."""
    name, generation = cfg.backbone.name, cfg.generation
    if is_api(cfg):
        if trains(cfg):
            raise UserError(
                f"backbone={name} is an API model and is never trained: give algo=base, not algo={cfg.algorithm.name}"
            )
        if generation.engine == "local":
            raise UserError(f"backbone={name} is an API model and does not run here: leave out generation.engine=local")
    if generation.engine == "local":
        for key in ("max_new_tokens", "temperature"):
            if generation[key] is None:
                raise UserError(f"generation.{key}=null leaves it to a server, and {name} runs in this process: give a number")
        return
    if generation.client.model is None:
        key = "backbone.model=PROVIDER/NAME" if is_api(cfg) else "generation.client.model=openai/NAME"
        raise UserError(f"backbone={name} on a server needs the model's name: give {key}")
    if not is_api(cfg) and generation.client.api_base is None:
        raise UserError(
            f"generation.engine=server needs the address where {name} is served: generation.client.api_base=http://HOST:PORT/v1"
        )
    if generation.constrain != "none":
        raise UserError(
            f"generation.constrain={generation.constrain} works on a model in this process only: give generation.constrain=none"
        )


def _check_shares(cfg: DictConfig) -> None:
    """That the effective batch can be shared out among the processes."""
    from cso_lab.training.arguments import batches

    hardware = cfg.hardware
    if hardware.processes % hardware.nodes:
        raise UserError(f"hardware.processes={hardware.processes} is no multiple of hardware.nodes ({hardware.nodes})")
    if hardware.nodes > 1 and not hardware.launcher:
        raise UserError(
            f"hardware.nodes={hardware.nodes} needs hardware.launcher, which starts a command on each: use hardware=slurm"
        )
    at_once, _ = batches(cfg)
    if cfg.algorithm.rows == "kto" and at_once < 2:
        raise UserError(
            "KTO estimates its KL term on neighbouring rows, so a process takes at least 2 at once: raise training.batch_size"
            f" ({cfg.training.batch_size}) or training.per_device_batch_size, or lower hardware.processes ({hardware.processes})"
        )


def _check_tree_mask(cfg: DictConfig) -> None:
    """That the attention of the backbone takes the form of mask that is asked for, on the device there is."""
    from cso_lab.training.backbone import device

    form, attention = cfg.training.tree_mask, cfg.backbone.attn_implementation
    if form == "dense" and attention == "flex_attention":
        raise UserError(f"training.tree_mask=dense takes backbone.attn_implementation=sdpa or eager, not {attention}")
    if form == "blocks" and attention != "sdpa":
        raise UserError(
            f"training.tree_mask=blocks takes backbone.attn_implementation=sdpa, not {attention}: give auto or dense"
        )
    if "flex" in (form, str(attention)[:4]) and device(cfg) == "cpu":
        raise UserError(
            f"FlexAttention (training.tree_mask={form}, backbone.attn_implementation={attention}) trains on GPUs only: give"
            " training.tree_mask=auto and backbone.attn_implementation=sdpa or eager"
        )


def _check_roles(cfg: DictConfig) -> None:
    for key in ("api_base", *(f"{role}.model" for role in ("seeker", "supporter", "strategist", "judge"))):
        node, _, leaf = f"roles.{key}".rpartition(".")
        if OmegaConf.is_missing(OmegaConf.select(cfg, node), leaf):
            raise UserError(f"roles={cfg.roles.name} needs roles.{key}: give roles.{key}=VALUE")
