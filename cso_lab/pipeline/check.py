"""Checks a cell before any work starts: each value by the schema, then values that depend on one another or on what they name."""

import inspect
from functools import partial

from omegaconf import DictConfig, OmegaConf

from cso_lab.config.cells import is_api, start_of, trains, trains_here
from cso_lab.config.schema import check_schema, check_training
from cso_lab.core.errors import UserError, unknown
from cso_lab.core.strategies import strategy_set
from cso_lab.pipeline.conversation_settings import check_conversations
from cso_lab.pipeline.stages import STAGES


def check(cfg: DictConfig) -> None:
    """Raises UserError, which names the first key of a cell's configuration whose value cannot work, with what would."""
    names = [stage.name for stage in STAGES]
    for stage in cfg.stages:
        if stage not in names:
            raise unknown("stage", stage, names)
    check_schema(cfg)
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
    asks = searches or ("dataset" in cfg.stages and cfg.preferences.negatives is not None)
    if (trains_here(cfg) and asks) or "converse" in cfg.stages:
        _check_roles(cfg)
    if "converse" in cfg.stages or cfg.conversation.reference is not None:
        check_conversations(cfg)
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
    """Raises UserError if the training that the algorithm starts from, whose values stand below algorithm.start, cannot work."""
    before = start_of(cfg)
    if before is None:
        return
    name = before.algorithm.name
    if not trains(before):
        raise UserError(f"algorithm.start ({name}) trains nothing: give algorithm.start=null to start from the backbone")
    try:
        check_training(before)
        if "train" in cfg.stages and trains_here(cfg):
            _check_shares(before)
        _check_start(before)
    except UserError as error:
        raise UserError(f"algorithm.start ({name}): {error}") from None


def _check_classes(cfg: DictConfig) -> None:
    """Raises UserError if a class that a stage to be run names by `_target_` cannot be found, or not be made with its settings."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from cso_lab.config.error_messages import explain

    replies = {"generate": ("decoding.method",), "converse": ("decoding.method",)}
    used = {"dataset": ("preferences.builder", "preferences.negatives"), **replies}
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
    """Raises UserError if the settings at `key` are no arguments of its class."""
    try:
        inspect.signature(deferred.func).bind(*deferred.args, **deferred.keywords)
    except TypeError as error:
        raise UserError(f"{key}: {deferred.func.__module__}.{deferred.func.__qualname__}: {error}") from error
    except ValueError:
        pass  # a callable that does not say what it takes


def _check_data(cfg: DictConfig) -> None:
    """Raises UserError if a file of the corpus is not found, or a label is to mean no strategy."""
    from cso_lab.corpora import corpus_strategies, data_source, test_source

    data_source(cfg.data)
    test_source(cfg.data)
    corpus_strategies(cfg.data)


def _check_engine(cfg: DictConfig) -> None:
    """Raises UserError if the engine of the generation cannot do what is asked, or lacks a setting it needs."""
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
    """Raises UserError if the effective batch cannot be shared out among the processes."""
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
    """Raises UserError if the backbone's attention does not take the form of mask that is asked for, on the device there is."""
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
    """Raises UserError if the address or a model of the roles has yet to be given."""
    for key in ("api_base", *(f"{role}.model" for role in ("seeker", "supporter", "strategist", "judge"))):
        node, _, leaf = f"roles.{key}".rpartition(".")
        if OmegaConf.is_missing(OmegaConf.select(cfg, node), leaf):
            raise UserError(f"roles={cfg.roles.name} needs roles.{key}: give roles.{key}=VALUE")
