"""Checks a cell before any work starts: each value by the schema, then values that depend on others, on files or on classes."""

import inspect
from functools import partial

from omegaconf import DictConfig, OmegaConf

from cso_lab.config.cells import (
    GENERATOR,
    asks_judge,
    expanded,
    is_api,
    is_decoupled,
    start_of,
    starts_server,
    trains,
    trains_here,
    zero_stage,
)
from cso_lab.config.schema import check_schema, check_training
from cso_lab.core.errors import UserError, unknown
from cso_lab.core.strategies import strategy_set
from cso_lab.pipeline.conversation_settings import check_conversations
from cso_lab.pipeline.generate import no_dialogue
from cso_lab.pipeline.rounds import check_rounds
from cso_lab.pipeline.stages import STAGES


def check(cfg: DictConfig) -> None:
    """Raises UserError if a value of a cell's configuration cannot work; it names the first such key and a valid value."""
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
    _check_selection(cfg)
    _check_engine(cfg)
    searches = "search" in cfg.stages and not cfg.data.get("expanded")
    asks = searches or ("dataset" in cfg.stages and cfg.preferences.negatives is not None)
    asks = asks or ("train" in cfg.stages and asks_judge(cfg))
    if (trains_here(cfg) and asks) or "converse" in cfg.stages:
        _check_roles(cfg)
    if "converse" in cfg.stages or cfg.conversation.reference is not None:
        check_conversations(cfg)
    if "inspect" in cfg.stages and cfg.toxicity.get("model", "") is None:
        raise UserError(f"toxicity={cfg.toxicity.name} needs its model: give toxicity.model=PROVIDER/NAME")
    if trains(cfg) and cfg.preferences.dialogues == 0:
        raise UserError("preferences.dialogues=0 leaves nothing to train on: with no dialogue it is the base model, algo=base")
    check_rounds(cfg)
    if trains(cfg):
        _check_token_weights(cfg)
        _check_start(cfg)
    if "train" in cfg.stages and trains_here(cfg):
        _check_shares(cfg)
        _check_tree_mask(cfg)
        _check_offload(cfg)


def _check_token_weights(cfg: DictConfig) -> None:
    """Raises UserError if no token of a response counts in its log-probability."""
    keys = ("strategy_weight", "response_weight")
    for node in ("algorithm", f"algorithm.{GENERATOR}"):
        weights = OmegaConf.select(cfg, node)
        if weights is not None and all(weights.get(key) == 0 for key in keys):
            raise UserError(f"{' and '.join(f'{node}.{key}' for key in keys)} are both 0: give one of them a value above 0")


def _check_start(cfg: DictConfig) -> None:
    """Raises UserError if the training that the algorithm starts from, configured below algorithm.start, cannot work."""
    start = start_of(cfg)
    if start is None:
        return
    name = start.algorithm.name
    if is_decoupled(start):
        raise UserError(f"algorithm.start ({name}) is two models, and a training starts from one: give algorithm.start=null")
    if not trains(start):
        raise UserError(f"algorithm.start ({name}) trains nothing: give algorithm.start=null to start from the backbone")
    try:
        check_training(start)
        if "train" in cfg.stages and trains_here(cfg):
            _check_shares(start)
        _check_start(start)
    except UserError as error:
        raise UserError(f"algorithm.start ({name}): {error}") from None


def _check_classes(cfg: DictConfig) -> None:
    """Raises UserError if a class that a requested stage names by `_target_` is not found or does not accept its settings."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from cso_lab.config.error_messages import explain

    replies = {"generate": ("decoding.method",), "converse": ("decoding.method",)}
    used = {"dataset": ("preferences.builder", "preferences.negatives"), **replies}
    try:
        instantiate(cfg.mcts.reward)
        for key in [key for stage in cfg.stages for key in used.get(stage, ())]:
            if node := OmegaConf.select(cfg, key):
                # The object is not created yet: a class of the user's may load a model.
                _check_arguments(key, instantiate(node, _partial_=True))
        if "search" in cfg.stages:
            instantiate(cfg.mcts.search, _partial_=True)
        if "train" in cfg.stages and asks_judge(cfg):
            _check_rewards(cfg)
    except InstantiationException as error:
        raise explain(error) from error


def _check_rewards(cfg: DictConfig) -> None:
    """Raises UserError if a reward of the algorithm has no weight, or is not found, or does not accept its settings."""
    from hydra.utils import instantiate

    from cso_lab.training.rewards.reward_functions import used_rewards

    for name in used_rewards(cfg.algorithm):
        _check_arguments(f"algorithm.rewards.{name}", instantiate(cfg.algorithm.rewards[name], _partial_=True))
    instantiate(cfg.algorithm.rollouts, _partial_=True)


def _check_arguments(key: str, deferred: partial) -> None:
    """Raises UserError if the settings at `key` are no arguments of its class."""
    try:
        inspect.signature(deferred.func).bind(*deferred.args, **deferred.keywords)
    except TypeError as error:
        raise UserError(f"{key}: {deferred.func.__module__}.{deferred.func.__qualname__}: {error}") from error
    except ValueError:
        pass  # a callable without a signature


def _check_data(cfg: DictConfig) -> None:
    """Raises UserError if a file of the corpus is not found, a label is mapped to an unknown strategy, or nothing is held out."""
    from cso_lab.corpora import corpus_strategies, data_source, test_source

    data_source(cfg.data)
    test_source(cfg.data)
    corpus_strategies(cfg.data)
    measures = {"generate", "evaluate", "converse"} & set(cfg.stages)
    if measures and cfg.generation.dialogues == "validation" and not cfg.data.validation_share:
        raise no_dialogue(cfg, "to measure on")


def _check_selection(cfg: DictConfig) -> None:
    """Raises UserError if pairs are to be selected by what only the trees of a search say."""
    from cso_lab.preferences.selection import OF_TREES, Selection

    selection = Selection.of(cfg.preferences)
    for key in OF_TREES if expanded(cfg) else ():
        if (value := getattr(selection, key)) != (default := getattr(Selection, key)):
            raise UserError(
                f"preferences.{key}={value} selects by the trees of a search, and data={cfg.data.name} is expanded already: give"
                f" preferences.{key}={default}"
            )


def _check_engine(cfg: DictConfig) -> None:
    """Raises UserError if the generation engine does not support a setting, or lacks one that it needs."""
    name, generation = cfg.backbone.name, cfg.generation
    if is_api(cfg):
        if trains(cfg):
            raise UserError(
                f"backbone={name} is an API model and is never trained: give algo=base, not algo={cfg.algorithm.name}"
            )
        if generation.engine == "local":
            raise UserError(f"backbone={name} is an API model and does not run here: leave out generation.engine=local")
    _check_serving(cfg)
    if generation.engine == "local":
        for key in ("max_new_tokens", "temperature"):
            if generation[key] is None:
                raise UserError(f"generation.{key}=null leaves it to a server, and {name} runs in this process: give a number")
        _check_thinking(cfg)
        return
    if is_decoupled(cfg):
        raise UserError(
            f"algo={cfg.algorithm.name} replies with two models in turn, in this process only: leave out generation.engine=server"
        )
    if generation.client.model is None and not starts_server(cfg):
        key = "backbone.model=PROVIDER/NAME" if is_api(cfg) else "generation.client.model=openai/NAME"
        raise UserError(f"backbone={name} on a server needs the model's name: give {key}")
    if not is_api(cfg) and not starts_server(cfg) and generation.client.api_base is None:
        raise UserError(
            f"generation.engine=server needs the address where {name} is served: generation.client.api_base=http://HOST:PORT/v1,"
            " or serving=transformers or another program that the run starts itself"
        )
    if generation.constrain != "none":
        raise UserError(
            f"generation.constrain={generation.constrain} works on a model in this process only: give generation.constrain=none"
        )


def _check_thinking(cfg: DictConfig) -> None:
    """Raises UserError if a model in this process is to think: in its training rows the reply follows the prompt at once."""
    from cso_lab.training.backbone import template_variables
    from cso_lab.training.chat_format import THINKING_SWITCHES

    for switch, value in template_variables(cfg).items():
        if switch in THINKING_SWITCHES and value:
            raise UserError(
                f"backbone.chat_template_kwargs.{switch}={value}: a model in this process replies without thinking, as it is trained to:"
                " leave it out, or ask a server that holds the model (generation.engine=server)"
            )


def _check_serving(cfg: DictConfig) -> None:
    """Raises UserError if the run is to start a server that could not be asked, or would not be."""
    serving, client = f"serving={cfg.serving.name}", cfg.generation.client
    if cfg.serving.command is None:
        return
    if is_api(cfg):
        raise UserError(
            f"{serving} starts a server for weights, and backbone={cfg.backbone.name} is an API model: give serving=none"
        )
    if not starts_server(cfg):
        raise UserError(f"{serving} starts a server that nobody asks: give generation.engine=server with it, or serving=none")
    if given := [key for key in ("model", "api_base") if client[key] is not None]:
        raise UserError(
            f"generation.client.{given[0]}={client[given[0]]} is of a server that runs already, and {serving} starts one: leave one of"
            " them out"
        )


def _check_shares(cfg: DictConfig) -> None:
    """Raises UserError if the effective batch cannot be divided among the processes."""
    from cso_lab.training.arguments import batches

    hardware = cfg.hardware
    if hardware.processes % hardware.nodes:
        raise UserError(f"hardware.processes={hardware.processes} is no multiple of hardware.nodes ({hardware.nodes})")
    if hardware.nodes > 1 and not hardware.launcher:
        raise UserError(
            f"hardware.nodes={hardware.nodes} needs hardware.launcher, which starts a command on each: use hardware=slurm"
        )
    at_once, _ = batches(cfg)
    if asks_judge(cfg):
        from cso_lab.training.online import check_groups

        check_groups(cfg)
    if cfg.algorithm.rows == "kto" and at_once < 2:
        raise UserError(
            "KTO estimates its KL term on neighbouring rows, so a process takes at least 2 at once: raise training.batch_size"
            f" ({cfg.training.batch_size}) or training.per_device_batch_size, or lower hardware.processes ({hardware.processes})"
        )


def _check_tree_mask(cfg: DictConfig) -> None:
    """Raises UserError if the backbone's attention does not support the configured form of mask."""
    form, attention = cfg.training.tree_mask, cfg.backbone.attn_implementation
    if form == "dense" and attention == "flex_attention":
        raise UserError(f"training.tree_mask=dense takes backbone.attn_implementation=sdpa or eager, not {attention}")
    if form == "blocks" and attention != "sdpa":
        raise UserError(
            f"training.tree_mask=blocks takes backbone.attn_implementation=sdpa, not {attention}: give auto or dense"
        )


def _check_offload(cfg: DictConfig) -> None:
    """Raises UserError if optimizer states are to be kept on the CPU, and no ZeRO stage of DeepSpeed is there to do it."""
    if cfg.hardware.offload and not zero_stage(cfg):
        raise UserError(
            "hardware.offload=true keeps the optimizer's states on the CPU by DeepSpeed's ZeRO: give hardware=zero2 (or zero3) with it"
        )


def _check_roles(cfg: DictConfig) -> None:
    """Raises UserError if the address or a model of the roles is not set."""
    for key in ("api_base", *(f"{role}.model" for role in ("seeker", "supporter", "strategist", "judge"))):
        node, _, leaf = f"roles.{key}".rpartition(".")
        if OmegaConf.is_missing(OmegaConf.select(cfg, node), leaf):
            raise UserError(f"roles={cfg.roles.name} needs roles.{key}: give roles.{key}=VALUE")
