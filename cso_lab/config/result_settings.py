"""What results depend on: the values of a configuration that count, and the keys that change no result, each with its reason."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cso_lab.config.cells import Config, expanded, generates_here, is_api, trains, trains_here
from cso_lab.config.clients import LIMITS


@dataclass(frozen=True)
class NoEffect:
    """Keys, each with all that lies below it, that change no result, and why; `when` says of which cells that is true."""

    keys: tuple[str, ...]
    reason: str
    when: Callable[[Config], bool] = lambda cfg: True


def _limits(*clients: str) -> tuple[str, ...]:
    return tuple(f"{client}.{limit}" for client in clients for limit in LIMITS)


NO_EFFECT = (
    NoEffect(("stages", "rerun", "estimate", "debug"), "say what is done and shown, and not what it gives"),
    NoEffect(("shared_dir", "sweep"), "say where files lie, and not what is in them"),
    NoEffect(("report",), "the report is written anew every time"),
    NoEffect(("tracking",), "shows results elsewhere, and changes none"),
    NoEffect(("hyperparameters",), "tables of values: those in use count where they are used"),
    NoEffect(("seed",), "counts by the seeds that follow it: training.seed, generation.seed, decoding.method.seed"),
    NoEffect(("algorithm.recipe", "training.recipe"), "the row of Table 14: its values count in training"),
    NoEffect(("backbone.family",), "the rows of Tables 14 and 15: their values count in training and algorithm"),
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
    NoEffect(("mcts.speculation", "mcts.search.speculation"), "leaves worked on ahead of time change no tree"),
    NoEffect(("training.save_steps", "training.logging_steps"), "how often something is written, and not what is trained"),
    NoEffect(("hardware.nodes", "hardware.launcher"), "where the processes run; their number counts, by how sums are rounded"),
    NoEffect(("hardware",), "nothing is trained or generated here", lambda cfg: not generates_here(cfg)),
    NoEffect(
        ("hardware.processes", "hardware.deepspeed"), "of a training; nothing is trained", lambda cfg: not trains_here(cfg)
    ),
    NoEffect(
        ("algorithm", "finetune_mode", "training", "mcts", "roles", "preferences"),
        "of a training or of the data for it; nothing is trained",
        lambda cfg: not trains(cfg),
    ),
    NoEffect(("inspection", "toxicity"), "no dataset is made that could be looked at", lambda cfg: not trains_here(cfg)),
    NoEffect(
        ("mcts", "preferences.theta", "preferences.min_end_visits", "preferences.builder"),
        "the data is expanded already: nothing is searched, and no tree is read",
        expanded,
    ),
    NoEffect(("roles",), "no role player is asked", lambda cfg: expanded(cfg) and cfg["preferences"]["negatives"] is None),
    NoEffect(
        ("generation.batch_size",),
        "a greedy reply does not depend on what is generated beside it (but for rounding); only samples are drawn batch by batch",
        lambda cfg: cfg["generation"]["temperature"] == 0 or not generates_here(cfg),
    ),
    NoEffect(("generation.seed",), "nothing is sampled", lambda cfg: cfg["generation"]["temperature"] == 0),
    NoEffect(("generation.client",), "no server is asked", generates_here),
    NoEffect(("generation.dtype",), "the model runs on a server", lambda cfg: not generates_here(cfg)),
    NoEffect(
        ("generation.max_prompt_length",), "the tokens of an API model are not counted here, so its prompts are not cut", is_api
    ),
    NoEffect(
        ("evaluation.testset_seed", "evaluation.shortest", "evaluation.longest", "evaluation.cuts"),
        "of the strategy test set, which is not used",
        lambda cfg: cfg["evaluation"]["testset"] != "strategy",
    ),
    NoEffect(
        ("toxicity.batch_size", "toxicity.scorer.batch_size"), "a text's score does not depend on what is scored beside it"
    ),
)

# Shown beside numbers: what writes them down depends on them, and nothing else does.
_SHOWN = {"backbone.label", "algorithm.label", "finetune_mode.label", "decoding.label", "roles.notice"}
# What the numbers of a cell can depend on, and nothing besides.
_OF_NUMBERS = (
    *("backbone", "algorithm", "finetune_mode", "data", "roles", "mcts", "preferences", "training"),
    *("generation", "decoding", "evaluation", "conversation", "hardware"),
)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The nodes of a configuration that a result can depend on, resolved, as plain dicts."""
    return {node: OmegaConf.to_container(cfg[node], resolve=True) for node in (*_OF_NUMBERS, "inspection", "toxicity")}


def no_effect(cfg: Config, key: str) -> str | None:
    """Why the dotted `key` changes no result of the cell; None where it may change one. A key of what an algorithm starts from is what
    it is of an algorithm and of a training."""
    while key.startswith("algorithm.start."):
        rest = key.removeprefix("algorithm.start.")
        key = rest if rest.startswith("training.") else f"algorithm.{rest}"
    entries = (entry for entry in NO_EFFECT if entry.when(cfg))
    return next((entry.reason for entry in entries if any(f"{key}.".startswith(f"{held}.") for held in entry.keys)), None)


def counts(cfg: Config, key: str) -> bool:
    """Whether the cell's numbers may depend on the dotted `key`."""
    return key.partition(".")[0] in _OF_NUMBERS and key not in _SHOWN and no_effect(cfg, key) is None


def plain(cfg: Config, *nodes: str) -> dict[str, Any]:
    """Returns these nodes without the keys that change no result."""
    dropped = {key for entry in NO_EFFECT if entry.when(cfg) for key in entry.keys} | _SHOWN
    return {node: _without(cfg[node], node, dropped) for node in nodes if node not in dropped}


def _without(value: object, key: str, dropped: set[str]) -> object:
    """`value`, which stands at `key`, without what stands at the keys in `dropped`."""
    if not isinstance(value, dict):
        return value
    below = {name: f"{key}.{name}" for name in value}
    return {name: _without(value[name], below[name], dropped) for name in value if below[name] not in dropped}
