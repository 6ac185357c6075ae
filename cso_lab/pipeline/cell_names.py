"""Names of cells: their choices, and a hash of every value that their numbers depend on."""

from collections.abc import Iterable
from functools import cache

from omegaconf import DictConfig, OmegaConf

from cso_lab.config import CONF
from cso_lab.config.cells import algorithm_name, rounds_of, trains
from cso_lab.config.model_names import model_slug
from cso_lab.config.result_settings import Config, counts, plain, resolved
from cso_lab.core.hashing import digest
from cso_lab.pipeline.conversation_settings import conversation_settings
from cso_lab.pipeline.dataset import Dataset
from cso_lab.pipeline.generate import Generate
from cso_lab.pipeline.search import Search
from cso_lab.pipeline.train import Train


def cell_name(cfg: DictConfig) -> str:
    """Returns the cell's name, such as smollm2-dpo-lora-seed0-a1b2c3; two cells of other values never share one."""
    if cfg.conversation.reference is not None:
        return f"reference-{cfg.conversation.reference}-{config_hash(cfg)}"
    mode = [cfg.finetune_mode.name] if trains(cfg) else []
    seed = [f"seed{cfg.seed}"] if uses_seed(cfg) else []
    # Parts of a search give the same results, but two at once need a run folder each.
    part = [f"shard{cfg.data.shard}".replace("/", "of").replace(" ", "")] if cfg.data.shard != "1/1" else []
    decoding = [cfg.decoding.name] if cfg.decoding.name != "plain" else []
    several = [f"rounds{rounds_of(cfg)}"] if trains(cfg) and rounds_of(cfg) > 1 else []
    return "-".join(
        [model_slug(cfg), algorithm_name(cfg.algorithm), *several, *mode, *decoding, *seed, config_hash(cfg), *part]
    )


def run_folder(cfg: DictConfig) -> str:
    """Returns where a single run leaves its files: a folder named by the cell, or that which it is asked to report on."""
    return str(cfg.report.folder or f"multirun_outputs/runs/{cell_name(cfg)}")


def register_resolvers() -> None:
    """Registers the resolvers `${cell:}` and `${run_folder:}`."""
    OmegaConf.register_new_resolver("cell", lambda _root_: cell_name(_root_), replace=True)
    OmegaConf.register_new_resolver("run_folder", lambda _root_: run_folder(_root_), replace=True)


def uses_seed(cfg: DictConfig) -> bool:
    """Returns whether the numbers depend on the seed: not those of the untrained model, decoded greedily with a fixed prompt."""
    return trains(cfg) or cfg.generation.temperature != 0 or "seed" in cfg.decoding.method


def config_hash(cfg: DictConfig) -> str:
    """Returns a hash, 6 hexadecimal digits, of every value the cell's numbers depend on, but for the seed."""
    from cso_lab.corpora import identity_without_hub

    return digest([_without_seed(number_settings(resolved(cfg)), cfg.seed), identity_without_hub(cfg.data)])[:6]


def number_settings(cfg: Config) -> dict[str, dict]:
    """Returns every value the cell's numbers depend on, by stage, of a `resolved` configuration."""
    if cfg["conversation"]["reference"] is not None:
        return {"converse": conversation_settings(cfg)}
    stages = (Search, Dataset, Train, Generate) if trains(cfg) else (Generate,)
    values = {stage.name: stage.settings(cfg) for stage in stages} | plain(cfg, "evaluation")
    # As it comes, `conversation` is no part of the name, so that conversations can be held with the model of a cell that has none.
    changed = {key: value for key, value in plain(cfg, "conversation")["conversation"].items() if value != _usual()[key]}
    return values | ({"conversation": changed} if changed else {})


@cache
def _usual() -> dict:
    """The values of `conversation` where nothing is given."""
    folder = CONF / "conversation"
    files = {"seeker": folder / "seeker" / "simulated.yaml", "harm": folder / "harm" / "rules.yaml"}
    usual = OmegaConf.to_container(OmegaConf.load(folder / "default.yaml"))
    return usual | {key: OmegaConf.to_container(OmegaConf.load(file)) for key, file in files.items()}


def _without_seed(value: object, seed: int) -> object:
    """Returns `value` without the seeds that equal the run's.

    mcts.seed, data.split_seed and evaluation.testset_seed are independent of it and stay.
    """
    if not isinstance(value, dict):
        return value
    value = {key: _without_seed(child, seed) for key, child in value.items()}
    for node in ("training", "generation", "method"):
        if isinstance(value.get(node), dict) and value[node].get("seed") == seed:
            del value[node]["seed"]
    return value


def varied(cfg: DictConfig, overrides: Iterable[str]) -> dict[str, str]:
    """Returns the values set on the command line on which the cell's numbers depend, as typed: {"training.learning_rate": "1e-5"}.

    Choices of whole groups (algo=dpo) are not among them: the cell has its own fields for those.
    """
    values = {}
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if "." in key and counts(cfg, key):
            values[key] = value
    return values
