"""What cells are called. Imports nothing heavy; the command line needs it."""

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.core.hashing import digest
from cso_lab.pipeline.settings import algorithm_name, counts, is_api, of_numbers, resolved, trains

CONF = Path(__file__).parents[1] / "conf"


def uses_seed(cfg: DictConfig) -> bool:
    """The untrained model decoded greedily is the same under every seed, so it is one cell, unless its prompt is drawn by one."""
    return trains(cfg) or cfg.generation.temperature != 0 or "seed" in cfg.decoding.method


def variant(cfg: DictConfig) -> str:
    """A hash of every value a cell's numbers depend on, but for the seed."""
    return digest(_without_seed(of_numbers(resolved(cfg)), cfg.seed))[:6]


def _without_seed(value: object, seed: int) -> object:
    """`value` without the seeds that follow the run's; mcts.seed, data.split_seed and evaluation.testset_seed are their own."""
    if not isinstance(value, dict):
        return value
    value = {key: _without_seed(child, seed) for key, child in value.items()}
    for node in ("training", "generation", "method"):
        if isinstance(value.get(node), dict) and value[node].get("seed") == seed:
            del value[node]["seed"]
    return value


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
        if "." in key and counts(cfg, key):
            values[key] = value
    return values


def cell_name(cfg: DictConfig) -> str:
    """What a cell is called: its choices, and a hash of every value that counts, so that a swept scalar never collides."""
    mode = [cfg.finetune_mode.name] if trains(cfg) else []
    seed = [f"seed{cfg.seed}"] if uses_seed(cfg) else []
    # Parts of a search give the same results, but two at once need a run folder each.
    part = [f"shard{cfg.data.shard}".replace("/", "of").replace(" ", "")] if cfg.data.shard != "1/1" else []
    decoding = [cfg.decoding.name] if cfg.decoding.name != "plain" else []
    return "-".join([cfg.backbone.name, algorithm_name(cfg.algorithm), *mode, *decoding, *seed, variant(cfg), *part])


def run_folder(cfg: DictConfig) -> str:
    """Where a single run leaves its files: a folder named by the cell, or that which it is asked to report on."""
    return str(cfg.report.folder or f"multirun_outputs/runs/{cell_name(cfg)}")


def register_resolvers() -> None:
    """Make `${cell:}` and `${run_folder:}` known to configurations."""
    OmegaConf.register_new_resolver("cell", lambda _root_: cell_name(_root_), replace=True)
    OmegaConf.register_new_resolver("run_folder", lambda _root_: run_folder(_root_), replace=True)
