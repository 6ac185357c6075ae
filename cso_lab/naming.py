"""What makes two runs the same: identities of stages, and the names of cells. Imports nothing heavy; the command line needs it."""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.roles import LIMITS

_PACKAGE = Path(__file__).parent
CONF = _PACKAGE.parent / "conf"

# What changes how a result is reached, or what it costs, but not the result.
_WITHOUT_EFFECT = {
    "mcts": ("speculation",),
    "roles": (*LIMITS, "notice"),
    "data": ("path", "shard"),  # what counts is what the file holds, and the whole search however it was shared out
    "training": ("save_steps", "logging_steps"),
    "generation": ("batch_size", *LIMITS),
    "backbone": ("turns_at_once", "reply_tokens"),  # they are what generation interpolates from
    "toxicity": ("batch_size", *LIMITS),
    "hardware": ("nodes", "launcher"),  # the number of processes counts: sums over them are rounded otherwise
}


def digest(value: object) -> str:
    """A short hash of any JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def plain(cfg: DictConfig, node: str) -> object:
    """One resolved node of the configuration as plain JSON, without the keys that have no effect on results."""
    value = OmegaConf.to_container(cfg[node], resolve=True) if OmegaConf.is_config(cfg[node]) else cfg[node]
    return _without(value, _WITHOUT_EFFECT.get(node, ()))


def _without(value: object, keys: tuple[str, ...]) -> object:
    """`value` without `keys`, wherever in it they stand."""
    if not isinstance(value, dict):
        return value
    return {key: _without(child, keys) for key, child in value.items() if key not in keys}


def file_digest(path: Path) -> str:
    """A short hash of a file's content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


@cache
def code_version(rooms: tuple[str, ...]) -> str:
    """A hash of the source of some rooms of the package ("training") or single modules ("strategies.py")."""
    sources = hashlib.sha256()
    for room in rooms:
        path = _PACKAGE / room
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            sources.update(file.read_bytes())
    return sources.hexdigest()[:12]


def trains(cfg: DictConfig) -> bool:
    """Whether the cell has a training at all; the base model has none."""
    return cfg.algorithm.trainer is not None


def is_api(cfg: DictConfig) -> bool:
    """Whether the backbone is an API model, which has no weights here."""
    return cfg.backbone.get("engine") == "server"


def trains_here(cfg: DictConfig) -> bool:
    """Whether the cell's training is part of the run; what a server holds has been trained before."""
    return trains(cfg) and cfg.generation.engine == "local"


# What a checkpoint depends on beside backbone, data, processes and seed.
_TRAINING = ("algorithm", "finetune_mode", "training", "mcts", "roles", "preferences")


def _effective_nodes(cfg: DictConfig) -> Iterable[str]:
    """The nodes a cell's numbers depend on."""
    yield from ("backbone", "data", "generation", "decoding", "evaluation")
    if trains(cfg):
        yield from (*_TRAINING, "hardware")


def trained_elsewhere(cfg: DictConfig) -> dict | None:
    """How the checkpoint on a server was trained, as far as the configuration says; None where none was, or it is trained here.

    The server itself does not tell: one address and model name may hold another checkpoint tomorrow. So this stands for it, and two cells
    share predictions only where all of it is the same.
    """
    if not trains(cfg) or trains_here(cfg):
        return None
    return {node: plain(cfg, node) for node in (*_TRAINING, "seed")}


def uses_seed(cfg: DictConfig) -> bool:
    """The untrained model decoded greedily is the same under every seed, so it is one cell, unless its prompt is drawn by one."""
    return trains(cfg) or cfg.generation.temperature != 0 or "seed" in cfg.decoding.method


def variant(cfg: DictConfig) -> str:
    """A hash of every value a cell's numbers depend on, but for the seed."""
    values = {node: plain(cfg, node) for node in _effective_nodes(cfg)} | {"evaluation": evaluation(cfg)}
    # these seeds follow the run's; mcts.seed, data.split_seed and evaluation.testset_seed are their own
    for node in (values.get("training", {}), values["generation"], values["decoding"]["method"]):
        if node.get("seed") == cfg.seed:
            del node["seed"]
    return digest(values)[:6]


def evaluation(cfg: DictConfig) -> dict:
    """What the numbers depend on beside the predictions: how the strategy test set is drawn, where it is used."""
    values = plain(cfg, "evaluation")
    return values if values["testset"] == "strategy" else {"testset": values["testset"]}


def generation(cfg: DictConfig) -> dict:
    """What the predictions depend on beside model and data. Seeds that decide nothing are left out."""
    values = {node: plain(cfg, node) for node in ("generation", "decoding")}
    if cfg.generation.temperature == 0:
        del values["generation"]["seed"]
    return values


def other_path(cfg: DictConfig) -> str | None:
    """`backbone.path` (of an API model, `.model`) where it is not the one the backbone's own YAML names, so that another model goes
    by its name; else None."""
    file = CONF / "backbone" / f"{cfg.backbone.name}.yaml"
    key = "model" if is_api(cfg) else "path"
    own = OmegaConf.load(file) if file.is_file() else None
    if own is None or OmegaConf.is_missing(own, key) or own[key] == cfg.backbone[key]:
        return None
    return str(cfg.backbone[key])


def varied(cfg: DictConfig, overrides: Iterable[str]) -> dict[str, str]:
    """The values set on the command line on which a cell's numbers depend, as typed: {"training.learning_rate": "1e-5"}.

    Choices of whole groups (algo=dpo) are not among them: the cell has its own fields for those.
    """
    values = {}
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        node, _, rest = key.partition(".")
        if rest and node in _effective_nodes(cfg) and not set(rest.split(".")) & set(_WITHOUT_EFFECT.get(node, ())):
            values[key] = value
    return values


def cell_name(cfg: DictConfig) -> str:
    """What a cell is called: its choices, and a hash of every value that counts, so that a swept scalar never collides."""
    mode = [cfg.finetune_mode.name] if trains(cfg) else []
    seed = [f"seed{cfg.seed}"] if uses_seed(cfg) else []
    # Parts of a search give the same results, but two at once need a run folder each.
    part = [f"shard{cfg.data.shard}".replace("/", "of").replace(" ", "")] if cfg.data.shard != "1/1" else []
    decoding = [cfg.decoding.name] if cfg.decoding.name != "plain" else []
    return "-".join([cfg.backbone.name, cfg.algorithm.name, *mode, *decoding, *seed, variant(cfg), *part])


def run_folder(cfg: DictConfig) -> str:
    """Where a single run leaves its files: a folder named by the cell, or that which it is asked to report on."""
    return str(cfg.report.folder or f"multirun_outputs/runs/{cell_name(cfg)}")


def register_resolvers() -> None:
    """Make `${cell:}` and `${run_folder:}` known to configurations."""
    OmegaConf.register_new_resolver("cell", lambda _root_: cell_name(_root_), replace=True)
    OmegaConf.register_new_resolver("run_folder", lambda _root_: run_folder(_root_), replace=True)
