"""What a configuration says of each stage's result: the values the result depends on, and the keys no result depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cso_lab.core.errors import UserError
from cso_lab.roles import LIMITS

# A composed configuration, or its resolved nodes as plain dicts.
Config = Mapping[str, Any]


def trains(cfg: Config) -> bool:
    """Whether the cell has a training at all; the base model has none."""
    return cfg["algorithm"]["trainer"] is not None


def is_api(cfg: Config) -> bool:
    """Whether the backbone is an API model, which has no weights here."""
    return cfg["backbone"].get("engine") == "server"


def expanded(cfg: Config) -> bool:
    """Whether the data says itself what is dispreferred, so that nothing is searched."""
    return bool(cfg["data"].get("expanded"))


def generates_here(cfg: Config) -> bool:
    """Whether the model runs in this process, and is not asked on a server."""
    return cfg["generation"]["engine"] == "local"


def trains_here(cfg: Config) -> bool:
    """Whether the cell's training is part of the run; what a server holds has been trained before."""
    return trains(cfg) and generates_here(cfg)


def start_of(cfg: DictConfig) -> DictConfig | None:
    """The configuration of the training that the cell's algorithm starts from, as if that algorithm were the cell's own; None where it
    starts from the backbone."""
    start = _start(cfg.algorithm)
    if start is None:
        return None
    # Resolved where it stands, since it follows the training after it in some values.
    training = OmegaConf.to_container(start.training, resolve=True)
    own = _without_training(OmegaConf.to_container(start))
    cfg = cfg.copy()
    cfg.training, cfg.algorithm = training, own
    return cfg


def algorithm_name(algorithm: Config) -> str:
    """The algorithm with what it starts from, such as dpo_after_sft."""
    start = _start(algorithm)
    return algorithm["name"] if start is None else f"{algorithm['name']}_after_{algorithm_name(start)}"


def algorithm_label(algorithm: Config) -> str:
    """The same as reports print it, such as CSO-DPO after SFT."""
    start = _start(algorithm)
    return algorithm["label"] if start is None else f"{algorithm['label']} after {algorithm_label(start)}"


def _start(algorithm: Config) -> Config | None:
    """What the algorithm starts from; a UserError where that is no algorithm with a training of its own."""
    start = algorithm.get("start")
    if start is not None and not (isinstance(start, Mapping | DictConfig) and {"name", "trainer", "training"} <= start.keys()):
        raise UserError(
            f"algorithm.start of algo={algorithm['name']} is no algorithm with a training of its own: write it as"
            " conf/algo/dpo_after_sft.yaml does, or give algorithm.start=null"
        )
    return start


def _without_training(start: Config) -> dict:
    return {key: value for key, value in start.items() if key != "training"}


@dataclass(frozen=True)
class NoEffect:
    """Keys, each with all that lies below it, that change no result, and why; `when` says of which cells that is true."""

    keys: tuple[str, ...]
    reason: str
    when: Callable[[Config], bool] = lambda cfg: True


def _limits(*clients: str) -> tuple[str, ...]:
    return tuple(f"{client}.{limit}" for client in clients for limit in LIMITS)


NO_EFFECT = (
    NoEffect(("stages", "rerun", "estimate"), "say what is done, and not what it gives"),
    NoEffect(("shared_dir", "sweep"), "say where files lie, and not what is in them"),
    NoEffect(("report",), "the report is written anew every time"),
    NoEffect(("tracking",), "shows results elsewhere, and changes none"),
    NoEffect(("hyperparameters",), "tables of values: those in use count where they are used"),
    NoEffect(("seed",), "counts by the seeds that follow it: training.seed, generation.seed, decoding.method.seed"),
    NoEffect(("algorithm.recipe", "training.recipe"), "the row of Table 14: its values count in training"),
    NoEffect(("backbone.family",), "the rows of Tables 14 and 15: their values count in training and algorithm"),
    NoEffect(
        ("backbone.reply_tokens", "backbone.turns_at_once"), "count by the values of generation that interpolate from them"
    ),
    NoEffect(("backbone.engine",), "counts by generation.engine", lambda cfg: not is_api(cfg)),
    NoEffect(("backbone.model",), "counts by generation.client.model"),
    NoEffect(
        ("data.path", "data.test_path", "data.hub"),
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
    NoEffect(("roles",), "nobody is asked", lambda cfg: expanded(cfg) and cfg["preferences"]["negatives"] is None),
    NoEffect(
        ("generation.batch_size",),
        "a greedy reply does not depend on what is generated beside it (but for rounding); only samples are drawn batch by batch",
        lambda cfg: cfg["generation"]["temperature"] == 0 or not generates_here(cfg),
    ),
    NoEffect(("generation.seed",), "nothing is sampled", lambda cfg: cfg["generation"]["temperature"] == 0),
    NoEffect(("generation.client",), "no server is asked", generates_here),
    NoEffect(("generation.dtype",), "the model runs on a server", lambda cfg: not generates_here(cfg)),
    NoEffect(("generation.max_prompt_length",), "nobody counts the tokens of an API model here, so it gets all", is_api),
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
    *("generation", "decoding", "evaluation", "hardware"),
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


def _plain(cfg: Config, *nodes: str) -> dict[str, Any]:
    """These nodes without the keys that change no result."""
    dropped = {key for entry in NO_EFFECT if entry.when(cfg) for key in entry.keys} | _SHOWN
    return {node: _without(cfg[node], node, dropped) for node in nodes if node not in dropped}


def _without(value: object, key: str, dropped: set[str]) -> object:
    """`value`, which stands at `key`, without what stands at the keys in `dropped`."""
    if not isinstance(value, dict):
        return value
    below = {name: f"{key}.{name}" for name in value}
    return {name: _without(value[name], below[name], dropped) for name in value if below[name] not in dropped}


def _search(cfg: Config) -> dict:
    values = _plain(cfg, "data", "roles", "mcts")
    if cfg["mcts"]["extend_negatives"] and not expanded(cfg):
        values["extended"] = {key: cfg["preferences"][key] for key in ("theta", "min_end_visits")}
    return values


def _dataset(cfg: Config) -> dict:
    values = _plain(cfg, "preferences") | {"strategies": cfg["data"]["strategies"]}
    if expanded(cfg):
        values |= _plain(cfg, "data")
    if cfg["preferences"]["negatives"] is not None:
        values |= _plain(cfg, "roles")
    return values


def _inspect(cfg: Config) -> dict:
    return _plain(cfg, "data", "inspection", "toxicity") | {"notice": None if expanded(cfg) else cfg["roles"]["notice"]}


def _scores(cfg: Config) -> dict:
    return _plain(cfg, "toxicity")


def _train(cfg: Config) -> dict:
    start = _start(cfg["algorithm"])
    own = cfg | {"algorithm": {key: value for key, value in cfg["algorithm"].items() if key != "start"}}
    values = _plain(own, "backbone", "algorithm", "finetune_mode", "training", "hardware")
    before = start and _train(cfg | {"algorithm": _without_training(start), "training": start["training"]})
    return values | {"start": before}


def _trained_elsewhere(cfg: Config) -> dict | None:
    if not trains(cfg) or trains_here(cfg):
        return None
    return {"search": _search(cfg), "dataset": _dataset(cfg), "train": _train(cfg)}


def trained_elsewhere(cfg: DictConfig) -> dict | None:
    """How the checkpoint on a server was trained, as far as the configuration says; None where none was, or it is trained here.

    The server itself does not tell: one address and model name may hold another checkpoint tomorrow. So this stands for it, and two cells
    share predictions only where all of it is the same.
    """
    return _trained_elsewhere(resolved(cfg))


def _test_data(cfg: Config) -> dict:
    """What decides which dialogues are tested on, and which may be shown as an example."""
    return {key: value for key, value in _plain(cfg, "data")["data"].items() if key != "seed_dialogues"}


def _generate(cfg: Config) -> dict:
    values = _plain(cfg, "backbone", "generation", "decoding") | {"data": _test_data(cfg)}
    if generates_here(cfg):
        values["device"] = cfg["hardware"]["device"]
    return values | {"trained_elsewhere": _trained_elsewhere(cfg)}


def _testset(cfg: Config) -> dict:
    return {"data": _test_data(cfg)} | _plain(cfg, "evaluation")


def _evaluate(cfg: Config) -> dict:
    """How is evaluated, and the names that are written beside the numbers."""
    shown = {"backbone": ("name", "label", "family"), "decoding": ("name", "label"), "data": ("name",)}
    if trains(cfg):
        shown |= {"finetune_mode": ("name", "label"), "roles": ("name", "notice"), "mcts": ("name",), "preferences": ("name",)}
    names = {node: [cfg[node].get(key) for key in keys] for node, keys in shown.items()}
    names["algorithm"] = [algorithm_name(cfg["algorithm"]), algorithm_label(cfg["algorithm"])]
    return _plain(cfg, "evaluation") | {"names": names}


# By stage, the values its result depends on beside the files it reads, of a `resolved` configuration.
SETTINGS: Mapping[str, Callable[[Config], dict]] = {
    "search": _search,
    "dataset": _dataset,
    "inspect": _inspect,
    "scores": _scores,
    "train": _train,
    "generate": _generate,
    "testset": _testset,
    "evaluate": _evaluate,
}


def of_numbers(cfg: Config) -> dict[str, dict]:
    """Every value the cell's numbers depend on, by stage, of a `resolved` configuration."""
    stages = ("search", "dataset", "train", "generate") if trains(cfg) else ("generate",)
    return {stage: SETTINGS[stage](cfg) for stage in stages} | _plain(cfg, "evaluation")
