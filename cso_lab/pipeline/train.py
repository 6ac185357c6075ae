"""The train stage: rows -> a checkpoint, after the training that the algorithm starts from."""

from pathlib import Path

from omegaconf import DictConfig

from cso_lab.config.cells import (
    asks_judge,
    is_decoupled,
    rounds_of,
    start_node,
    start_of,
    starts_from_previous_round,
)
from cso_lab.config.clients import LIMITS
from cso_lab.config.result_settings import Config, plain
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json
from cso_lab.core.hashing import file_digest
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.dataset import finished_dataset, rows_folder
from cso_lab.pipeline.stage import Result, Stage

CHECKPOINT = "checkpoint"
# Files of an interrupted training in the run folder, from which it continues.
_PARTIAL = (CHECKPOINT, "steps", "train_log.jsonl", "workers", "parts")

# A version of trainings in which a step's rows are taken in several parts; the others do not depend on how parts are weighed.
_ROW_WEIGHTS = "row weights 1"
# A version of the attention of trainings with shared prefixes on GPUs.
_GPU_ATTENTION = "gpu attention 1"


class Train(Result, Stage):
    """Leaves checkpoint/, train_log.jsonl and training.json in the run folder. Needs the rows of the dataset.

    `version` counts chat format, fitting and order of rows, the arguments of the trainers, and prefix sharing.
    """

    name, version, of_training = "train", 1, True

    @staticmethod
    def settings(cfg: Config) -> dict:
        """Returns backbone, algorithm, mode, training and hardware, and under "start" those of the training it starts from; the roles,
        too, if rewards may ask their judge."""
        start = start_node(cfg["algorithm"])
        without_start = cfg | {"algorithm": {key: value for key, value in cfg["algorithm"].items() if key != "start"}}
        values = plain(without_start, "backbone", "algorithm", "finetune_mode", "training", "hardware")
        if asks_judge(cfg):
            values |= plain(cfg, "roles") | {"strategies": cfg["data"]["strategies"]}
        algorithm = start and {key: value for key, value in start.items() if key != "training"}
        values["start"] = start and Train.settings(cfg | {"algorithm": algorithm, "training": start["training"], "rounds": 1})
        return values | ({"rounds": [rounds_of(cfg), cfg["round_start"]]} if rounds_of(cfg) > 1 else {})

    @classmethod
    def key(cls, cfg: DictConfig, *inputs: object) -> str:
        """See `Result.key`. An "auto" device and number type are resolved on this machine first."""
        from cso_lab.training.machine import resolve_auto

        cfg = resolve_auto(cfg)
        row_weights = [_ROW_WEIGHTS] if _takes_rows_in_parts(cfg) else []
        attention = [_GPU_ATTENTION] if cfg.hardware.device == "cuda" and cfg.training.share_prefixes else []
        return super().key(cfg, *inputs, *row_weights, *attention)

    def run(self, cell: CellContext) -> None:
        """Trains the checkpoint unless it is finished here or in a sibling cell. Raises UserError if the rows are missing."""
        rows = rows_folder(cell)
        key = _key(cell, cell.cfg, rows)
        if cell.cache.find_own("train", key, CHECKPOINT) or cell.cache.take_from_sibling("train", key, CHECKPOINT):
            return
        from cso_lab.training.online import JUDGE

        # With `rerun` a judge is asked anew; a run that was killed while it asked goes on.
        with cell.cache.compute_own("train", key, _PARTIAL, discard=(JUDGE,) if cell.cfg.rerun else ()):
            _train(cell, cell.cfg, rows, cell.folder)


def _takes_rows_in_parts(cfg: DictConfig) -> bool:
    """Returns whether the rows of an optimizer step may be shared out among processes or forward passes."""
    training = cfg.training
    return cfg.hardware.processes > 1 or training.per_device_batch_size is not None or not training.share_prefixes


def check_judge(cfg: DictConfig) -> None:
    """Raises UserError if the judge whose scores reward a training cannot be asked: its key is missing, or its model names no provider."""
    if not asks_judge(cfg):
        return
    import cso_lab.roles  # noqa: F401, makes the simulated players known
    from cso_lab.llm.client import Client
    from cso_lab.training.rewards.reward_functions import used_rewards
    from cso_lab.training.rewards.rewards import JudgeScore

    judged = f"{JudgeScore.__module__}.{JudgeScore.__qualname__}"
    if any(cfg.algorithm.rewards[name]["_target_"] == judged for name in used_rewards(cfg.algorithm)):
        Client(**{key: cfg.roles[key] for key in LIMITS}).check({"judge": cfg.roles.judge.model})


def is_trained(cell: CellContext) -> bool:
    """Returns whether the cell's training is finished, here or in a sibling cell. Raises UserError if there is no dataset to train on."""
    key = _key(cell, cell.cfg, finished_dataset(cell) / "preferences")
    return cell.cache.has_own("train", key, CHECKPOINT) or bool(cell.cache.find_sibling("train", key, CHECKPOINT))


def trained_folder(cell: CellContext) -> Path | None:
    """Returns the folder that holds the cell's checkpoint, its own or that of a cell beside it with the same training; None without one."""
    record = cell.cache.record
    if record.keys.get("train") and (record.stage_folder("train") / CHECKPOINT).exists():
        return record.stage_folder("train")
    try:
        key = _key(cell, cell.cfg, finished_dataset(cell) / "preferences")
    except UserError:  # no dataset: what is missing first is the training
        return None
    return cell.cache.take_from_sibling("train", key, CHECKPOINT)


def _key(cell: CellContext, cfg: DictConfig, rows: Path) -> str:
    """Returns the key of the checkpoint of `cfg`: the cell's configuration, or that of the training its algorithm starts from."""
    before = _training_before(cell, cfg, rows)
    start_key = None if before is None else _key(*before)
    return Train.key(cfg, file_digest(rows / f"{cfg.algorithm.rows}.jsonl"), cell.backbone_digest(), start_key)


def _train(cell: CellContext, cfg: DictConfig, rows: Path, folder: Path) -> bool:
    """Trains into `folder` and writes training.json about this training and the one it starts from."""
    from cso_lab.training.decoupled import train_parts
    from cso_lab.training.train import train

    before = _training_before(cell, cfg, rows)
    start = None if before is None else _shared_checkpoint(*before)
    earlier = {} if start is None else {_name_before(cfg): read_json(start.with_name("training.json"))}
    summary = (train_parts if is_decoupled(cfg) else train)(cfg, rows, folder, start)
    write_json(folder / "training.json", summary | earlier)
    return True


def _training_before(cell: CellContext, cfg: DictConfig, rows: Path) -> tuple[CellContext, DictConfig, Path] | None:
    """Returns the training that that of `cfg` on `rows` starts from, with its cell and rows: that of the round before, or that which the
    algorithm starts from. None if it starts from the backbone. Raises UserError if the round before has no dataset."""
    if starts_from_previous_round(cfg):
        return cell.before, cell.before.cfg, finished_dataset(cell.before) / "preferences"
    start = start_of(cfg)
    if start is None:
        return None
    # A later round starts from the same model as the first one: it was trained on that round's rows.
    first = cell.rounds()[0]
    return first, start, rows if first is cell else finished_dataset(first) / "preferences"


def _name_before(cfg: DictConfig) -> str:
    return "previous_round" if starts_from_previous_round(cfg) else "start"


def _shared_checkpoint(cell: CellContext, cfg: DictConfig, rows: Path) -> Path:
    """Returns the checkpoint of a training that another one starts from, or whose model is the supporter of a search.

    It is that of a sibling cell with the same training; without one, it is trained into a shared folder.
    """
    key = _key(cell, cfg, rows)
    if sibling := cell.cache.find_sibling("train", key, CHECKPOINT):
        return sibling / CHECKPOINT
    folder = cell.cache.shared_folder("train", key)
    cell.cache.compute_shared("start", folder, lambda: _train(cell, cfg, rows, folder))
    return folder / CHECKPOINT


def round_key(cell: CellContext) -> str:
    """Returns the key of the training of a cell as it is in one of its rounds. Raises UserError if there is no dataset to train on."""
    return _key(cell, cell.cfg, finished_dataset(cell) / "preferences")


def round_checkpoint(cell: CellContext) -> Path:
    """Returns the checkpoint of a cell as it is in a round before its last one, which is trained unless it is finished.

    Raises UserError if there is no dataset to train on.
    """
    return _shared_checkpoint(cell, cell.cfg, rows_folder(cell))
