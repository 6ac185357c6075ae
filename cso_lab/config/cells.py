"""Properties of the cell that a configuration describes: whether it trains, where its model runs, what its algorithm starts from."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cso_lab.core.errors import UserError

# A composed configuration, or its resolved nodes as plain dicts.
Config = Mapping[str, Any]
# The two trainings of a decoupled algorithm; the second one's model is below the first one's checkpoint, under this name.
PLANNER, GENERATOR = "planner", "generator"


def trains(cfg: Config) -> bool:
    """Returns whether the cell has a training at all; the base model has none."""
    return cfg["algorithm"]["trainer"] is not None


def is_api(cfg: Config) -> bool:
    """Returns whether the backbone is an API model, which has no weights here."""
    return cfg["backbone"].get("engine") == "server"


def expanded(cfg: Config) -> bool:
    """Returns whether the data says itself what is dispreferred, so that nothing is searched."""
    return bool(cfg["data"].get("expanded"))


def generates_here(cfg: Config) -> bool:
    """Returns whether the model runs in this process, and is not asked on a server."""
    return cfg["generation"]["engine"] == "local"


def starts_server(cfg: Config) -> bool:
    """Returns whether the run starts a server for its model, and asks that."""
    serving = cfg.get("serving")  # configurations of older runs have none
    return cfg["generation"]["engine"] == "server" and bool(serving) and serving["command"] is not None


def weights_here(cfg: Config) -> bool:
    """Returns whether the model's weights are used on this machine: in this process, or by a server that the run starts."""
    return generates_here(cfg) or starts_server(cfg)


def trains_here(cfg: Config) -> bool:
    """Returns whether the cell's training is part of the run; what the server of somebody else holds has been trained before."""
    return trains(cfg) and weights_here(cfg)


def zero_stage(cfg: DictConfig) -> int:
    """Returns the stage of ZeRO at which DeepSpeed trains (3 shares out the weights too), 0 without DeepSpeed."""
    return OmegaConf.select(cfg, "hardware.deepspeed.zero_optimization.stage") or 0


def start_of(cfg: DictConfig) -> DictConfig | None:
    """Returns the configuration of the training that the cell's algorithm starts from, in the form of a cell's; None if the algorithm
    starts from the backbone."""
    start = start_node(cfg.algorithm)
    if start is None:
        return None
    # Resolved in place, since some values interpolate from the training that follows it.
    training = OmegaConf.to_container(start.training, resolve=True)
    algorithm = {key: value for key, value in OmegaConf.to_container(start).items() if key != "training"}
    cfg = cfg.copy()
    cfg.training, cfg.algorithm = training, algorithm
    if rounds_of(cfg) > 1:
        cfg.rounds = 1
    return cfg


def rounds_of(cfg: Config) -> int:
    """Returns how often the cell searches and trains; configurations of older runs do not say."""
    return cfg.get("rounds", 1)


def starts_from_previous_round(cfg: Config) -> bool:
    """Returns whether the last training of the cell starts from the model of the round before it."""
    return rounds_of(cfg) > 1 and cfg["round_start"] == "previous"


def previous_round(cfg: DictConfig) -> DictConfig | None:
    """Returns the configuration of the round before the cell's last one, in the form of a cell's; None if there is none."""
    if rounds_of(cfg) == 1:
        return None
    cfg = cfg.copy()
    cfg.rounds -= 1
    # The first search is that of a cell with one round: the supporter is the configured one.
    cfg.roles.on_policy = cfg.rounds > 1
    return cfg


def trains_on(cfg: DictConfig, rows: str) -> bool:
    """Returns whether the cell's training, or one that it starts from, reads this file of the preference folder."""
    start = start_of(cfg)
    return cfg.algorithm.rows == rows or (start is not None and trains_on(start, rows))


def asks_judge(cfg: Config) -> bool:
    """Returns whether the training may ask the judge of the roles: it scores replies of the model by rewards."""
    return cfg["algorithm"].get("rewards") is not None


def is_decoupled(cfg: Config) -> bool:
    """Returns whether the cell's algorithm trains two models, of which one chooses the strategy and the other one writes the wording."""
    return cfg["algorithm"].get(GENERATOR) is not None


def parts_of(cfg: DictConfig) -> dict[str, DictConfig]:
    """Returns the configurations of the two trainings of a decoupled algorithm, each in the form of a cell's."""
    planner = OmegaConf.create(OmegaConf.to_container(cfg.algorithm))
    generator = planner.pop(GENERATOR)
    parts = {}
    for part, algorithm in ((PLANNER, planner), (GENERATOR, OmegaConf.merge(planner, generator))):
        parts[part] = cfg.copy()
        parts[part].algorithm = algorithm
        parts[part].algorithm.label = f"{cfg.algorithm.label}: {part}"
    return parts


def algorithm_name(algorithm: Config) -> str:
    """Returns the algorithm with what it starts from, such as dpo_after_sft."""
    start = start_node(algorithm)
    return algorithm["name"] if start is None else f"{algorithm['name']}_after_{algorithm_name(start)}"


def algorithm_label(algorithm: Config) -> str:
    """Returns the same as reports print it, such as CSO-DPO after SFT."""
    start = start_node(algorithm)
    return algorithm["label"] if start is None else f"{algorithm['label']} after {algorithm_label(start)}"


def start_node(algorithm: Config) -> Config | None:
    """Returns what the algorithm starts from; None if that is the backbone, or if it trains nothing.

    Raises UserError if what it starts from is no algorithm with a training of its own.
    """
    start = None if algorithm["trainer"] is None else algorithm.get("start")
    if start is not None and not (isinstance(start, Mapping | DictConfig) and {"name", "trainer", "training"} <= start.keys()):
        raise UserError(
            f"algorithm.start of algo={algorithm['name']} is no algorithm with a training of its own: give start=sft, write it as"
            " conf/algo/dpo_after_sft.yaml does, or give algorithm.start=null"
        )
    return start
