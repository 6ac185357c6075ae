"""Which values of a configuration results depend on, and which keys change no result, each with its reason."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cso_lab.config.cells import (
    Config,
    asks_judge,
    expanded,
    generates_here,
    is_api,
    rounds_of,
    starts_server,
    trains,
    trains_here,
    weights_here,
)
from cso_lab.config.clients import LIMITS


@dataclass(frozen=True)
class NoEffect:
    """Keys that change no result, each with all keys below it, and the reason; `when` returns whether this holds for a cell."""

    keys: tuple[str, ...]
    reason: str
    when: Callable[[Config], bool] = lambda cfg: True


def _limits(*clients: str) -> tuple[str, ...]:
    """Returns the dotted keys of the limits of these clients."""
    return tuple(f"{client}.{limit}" for client in clients for limit in LIMITS)


NO_EFFECT = (
    NoEffect(("stages", "rerun", "estimate", "debug"), "say what is done and shown, and not what it gives"),
    NoEffect(("shared_dir", "sweep"), "say where files lie, and not what is in them"),
    NoEffect(("report",), "the report is written anew every time"),
    NoEffect(("tracking",), "shows results elsewhere, and changes none"),
    NoEffect(("hyperparameters",), "tables of values: those in use count where they are used"),
    NoEffect(("seed",), "counts by the seeds that follow it: training.seed, generation.seed, decoding.method.seed"),
    NoEffect(("algorithm.recipe", "training.recipe"), "the row of Table 14: its values count in training"),
    NoEffect(
        ("backbone.family", "finetune_mode.family"),
        "the rows of Tables 14 and 15: their values count in training and algorithm",
    ),
    NoEffect(
        ("backbone.max_new_tokens", "backbone.batch_size"), "count by the values of generation that interpolate from them"
    ),
    NoEffect(("backbone.engine",), "counts by generation.engine", lambda cfg: not is_api(cfg)),
    NoEffect(("backbone.model",), "counts by generation.client.model"),
    NoEffect(
        ("data.path", "data.test_path", "conversation.cards"),
        "say where the file lies; what counts is its content, which is part of the key of every stage that reads it",
    ),
    NoEffect(("data.shard",), "a part of a search; what counts is the whole of it, however it was shared out"),
    NoEffect(("data.seed_dialogues",), "says what is searched", lambda cfg: not trains(cfg)),
    NoEffect(
        _limits("roles", "generation.client", "toxicity.client", "toxicity.scorer.client"),
        "how a server is asked: how often, how fast, at which address, for how much. A server gives no digest of what it holds, and its"
        " address changes with the machine it is started on while what was asked of it is to be gone on with; so the model's name stands"
        " for it, and another model must be served under another name",
    ),
    NoEffect(
        (
            *("roles.strategist.structured", "roles.judge.structured", "toxicity.structured", "toxicity.scorer.structured"),
            *("conversation.seeker.structured", "conversation.harm.structured"),
        ),
        "how a server is asked for JSON; what is asked, and which answers fit, stays. What a server takes shows when it is asked, and may"
        " change while it is, so that one search may hold replies of several forms, and those it holds are not paid for again",
    ),
    NoEffect(("mcts.speculation", "mcts.search.speculation"), "leaves worked on ahead of time change no tree"),
    NoEffect(("training.save_steps", "training.logging_steps"), "how often something is written, and not what is trained"),
    NoEffect(("hardware.nodes", "hardware.launcher"), "where the processes run; their number counts, by how sums are rounded"),
    NoEffect(("hardware.memory", "hardware.flops"), "what is planned with, and not what is computed"),
    NoEffect(("hardware",), "nothing is trained or generated here", lambda cfg: not weights_here(cfg)),
    NoEffect(
        ("hardware.processes", "hardware.deepspeed", "hardware.offload"),
        "of a training; nothing is trained",
        lambda cfg: not trains_here(cfg),
    ),
    NoEffect(
        ("algorithm", "finetune_mode", "training", "mcts", "roles", "preferences"),
        "of a training or of the data for it; nothing is trained",
        lambda cfg: not trains(cfg),
    ),
    NoEffect(("rounds", "round_start"), "nothing is trained", lambda cfg: not trains(cfg)),
    NoEffect(
        ("round_start",), "there is one round, which starts from what the algorithm says", lambda cfg: rounds_of(cfg) == 1
    ),
    NoEffect(("inspection", "toxicity"), "no dataset is made that could be looked at", lambda cfg: not trains_here(cfg)),
    NoEffect(
        ("mcts", "preferences.theta", "preferences.min_end_visits", "preferences.builder"),
        "the data is expanded already: nothing is searched, and no tree is read",
        expanded,
    ),
    NoEffect(
        ("roles",),
        "no role player is asked",
        lambda cfg: expanded(cfg) and cfg["preferences"]["negatives"] is None and not asks_judge(cfg),
    ),
    NoEffect(
        ("generation.batch_size",),
        "a greedy reply does not depend on what is generated beside it (but for rounding); only samples are drawn batch by batch",
        lambda cfg: cfg["generation"]["temperature"] == 0 or not generates_here(cfg),
    ),
    NoEffect(("generation.seed",), "nothing is sampled", lambda cfg: cfg["generation"]["temperature"] == 0),
    NoEffect(("generation.client",), "no server is asked", generates_here),
    NoEffect(("generation.dtype",), "the model runs on another's server", lambda cfg: not weights_here(cfg)),
    NoEffect(("serving",), "the run starts no server", lambda cfg: not starts_server(cfg)),
    NoEffect(
        tuple(f"serving.{key}" for key in ("command", "health", "port", "timeout", "max_concurrency", "requires", "install")),
        "where a server's program lies, and how it is started and waited for; its name and arguments count",
    ),
    NoEffect(
        ("generation.max_prompt_length",), "the tokens of an API model are not counted here, so its prompts are not cut", is_api
    ),
    NoEffect(
        ("evaluation.testset_seed", "evaluation.shortest", "evaluation.longest", "evaluation.cuts"),
        "of the strategy test set, which is not used",
        lambda cfg: cfg["evaluation"]["testset"] != "strategy",
    ),
    NoEffect(
        ("evaluation.text", "evaluation.bertscore"),
        "metrics beside the paper's four, which they do not change; see the evaluate stage",
    ),
    NoEffect(
        ("toxicity.batch_size", "toxicity.scorer.batch_size"), "a text's score does not depend on what is scored beside it"
    ),
)

# Keys that came after results had been made, by the value at which those results are what they are now: they count at any other value.
# None stands for 0 and for what is empty, too. `extra` holds fields that are added to requests.
_AT_FIRST = {
    "roles.cut_replies": "trim",
    "data.validation_share": None,
    "generation.dialogues": "test",
    "preferences.gold": True,
    "preferences.choose": "all",
    "preferences.balance": "none",
    "roles.on_policy": None,
    "backbone.chat_template_kwargs": None,
    "roles.judge.noise": None,
    "finetune_mode.quantization": None,
    "hardware.offload": None,
    **{f"roles.{role}.extra": None for role in ("seeker", "supporter", "strategist", "judge")},
    **dict.fromkeys(("generation.client.extra", "toxicity.extra", "toxicity.scorer.model.extra")),
}

# Labels and notices shown beside the numbers: only the stages that write them down depend on them.
_SHOWN = {"backbone.label", "algorithm.label", "finetune_mode.label", "decoding.label", "roles.notice"}
# The nodes that the numbers of a cell can depend on.
_OF_NUMBERS = (
    *("backbone", "algorithm", "finetune_mode", "data", "roles", "mcts", "preferences", "training"),
    *("generation", "serving", "decoding", "evaluation", "conversation", "hardware"),
)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Returns the nodes of a configuration that a result can depend on, resolved, as plain dicts."""
    nodes = {node: OmegaConf.to_container(cfg[node], resolve=True) for node in (*_OF_NUMBERS, "inspection", "toxicity")}
    return nodes | {"rounds": rounds_of(cfg), "round_start": cfg.get("round_start")}


def no_effect(cfg: Config, key: str) -> str | None:
    """Returns why the dotted `key` changes no result of the cell; None if it may change one.

    A key below `algorithm.start` is treated as the key of `algorithm` or `training` with the same name.
    """
    while key.startswith("algorithm.start."):
        start_key = key.removeprefix("algorithm.start.")
        key = start_key if start_key.startswith("training.") else f"algorithm.{start_key}"
    entries = (entry for entry in NO_EFFECT if entry.when(cfg))
    return next((entry.reason for entry in entries if any(f"{key}.".startswith(f"{prefix}.") for prefix in entry.keys)), None)


def counts(cfg: Config, key: str) -> bool:
    """Returns whether the cell's numbers may depend on the dotted `key`."""
    return key.partition(".")[0] in _OF_NUMBERS and key not in _SHOWN and no_effect(cfg, key) is None


def plain(cfg: Config, *nodes: str) -> dict[str, Any]:
    """Returns these nodes without the keys that change no result."""
    dropped = {key for entry in NO_EFFECT if entry.when(cfg) for key in entry.keys} | _SHOWN
    return {node: _without(cfg[node], node, dropped) for node in nodes if node not in dropped}


def _without(value: object, key: str, dropped: set[str]) -> object:
    """Returns `value`, the value at `key`, without the keys in `dropped` and those in _AT_FIRST with their first value."""
    if not isinstance(value, dict):
        return value
    below = {name: f"{key}.{name}" for name in value}
    kept = [name for name in value if below[name] not in dropped]
    kept = [name for name in kept if below[name] not in _AT_FIRST or (value[name] or None) != _AT_FIRST[below[name]]]
    return {name: _without(value[name], below[name], dropped) for name in kept}
