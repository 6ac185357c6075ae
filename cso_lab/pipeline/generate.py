"""The generate stage: a model -> its replies at the turns of the test dialogues."""

import shutil
from pathlib import Path

from omegaconf import DictConfig

from cso_lab.config.cells import is_api, starts_server, trains, trains_here, weights_here
from cso_lab.config.result_settings import Config, plain, resolved
from cso_lab.core.errors import UserError
from cso_lab.core.files import write_jsonl
from cso_lab.core.records import TEST_DIALOGUES
from cso_lab.generation.generate import PARTIAL, PREDICTIONS, generate
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.dataset import Dataset
from cso_lab.pipeline.search import Search
from cso_lab.pipeline.stage import Result, Stage
from cso_lab.pipeline.train import CHECKPOINT, Train

# What a cell with the same predictions takes over.
_COPIED = (PREDICTIONS, TEST_DIALOGUES, "usage.json", "example.json")


class Generate(Result, Stage):
    """Leaves predictions.jsonl, the test dialogues, and of a served model usage.json in the run folder. Needs the checkpoint of a cell that
    trains here. `version` counts prompts, decoding and parsing."""

    name, version = "generate", 1

    @staticmethod
    def settings(cfg: Config) -> dict:
        """Returns backbone, generation, server, decoding and test data, the device, and how a checkpoint on a server was trained."""
        values = plain(cfg, "backbone", "generation", "serving", "decoding") | {"data": measured_data(cfg)}
        if weights_here(cfg):
            values["device"] = cfg["hardware"]["device"]
        return values | {"trained_elsewhere": _trained_elsewhere(cfg)}

    @classmethod
    def key(cls, cfg: DictConfig, *inputs: object) -> str:
        """See `Result.key`. If the model runs in this process, "auto" device and number type are resolved on this machine first."""
        from cso_lab.training.machine import resolve_auto

        return super().key(resolve_auto(cfg) if weights_here(cfg) else cfg, *inputs)

    def run(self, cell: CellContext) -> None:
        """Writes the predictions unless they are finished here or in a sibling cell. Raises UserError if the checkpoint is missing."""
        checkpoint, cache = _checkpoint(cell), cell.cache
        key = _key(cell)
        if cache.find_own("generate", key, PREDICTIONS):
            return
        if sibling := cache.take_from_sibling("generate", key, PREDICTIONS):
            for file in _COPIED:
                if (sibling / file).exists():
                    shutil.copyfile(sibling / file, cell.folder / file)
            return
        train, test = cell.measured_dialogues()
        if not test:
            raise no_dialogue(cell.cfg, "to generate for")
        # With `rerun` a server is asked anew; a run that was killed while it asked goes on.
        replies = ("calls.jsonl",) if cell.cfg.rerun else ()
        with cache.compute_own("generate", key, (PARTIAL,), discard=(PREDICTIONS, *replies)):
            write_jsonl(cell.folder / TEST_DIALOGUES, test)
            generate(cell.cfg, test, cell.strategies, checkpoint, cell.folder, train, served_identity(cell))


def print_generation_estimate(cell: CellContext) -> None:
    """Print what it would take to have the cell's server generate; ask nothing."""
    from cso_lab.generation.estimate import estimate_generation

    train, test = cell.measured_dialogues()
    print(f"generate: {estimate_generation(cell.cfg, test, cell.strategies, train)}")


def is_generated(cell: CellContext) -> bool:
    """Returns whether the run folder holds the cell's predictions."""
    return cell.cache.has_own("generate", _key(cell), PREDICTIONS)


def measured_data(cfg: Config) -> dict:
    """Returns what decides which dialogues are measured on, and which may be shown as an example."""
    values = {key: value for key, value in plain(cfg, "data")["data"].items() if key != "seed_dialogues"}
    measured = plain(cfg, "generation")["generation"].get("dialogues", "test")
    return values if measured == "test" else values | {"measured": measured}


def no_dialogue(cfg: DictConfig, purpose: str) -> UserError:
    """Returns the error that the configuration leaves no dialogue to measure on."""
    if cfg.generation.dialogues == "validation":
        return UserError(
            f"generation.dialogues=validation, but data.validation_share={cfg.data.validation_share} leaves no dialogue {purpose}: raise it"
        )
    return UserError(
        f"data.test_share={cfg.data.test_share} leaves no test dialogue {purpose}: raise it, or give data.test_path=FILE"
    )


def _checkpoint(cell: CellContext) -> Path | None:
    """Returns the cell's checkpoint; None if nothing is trained here. Raises UserError if it is missing."""
    if not trains_here(cell.cfg):
        return None
    checkpoint = cell.cache.record.stage_folder("train") / CHECKPOINT
    if not cell.cache.record.keys.get("train") or not checkpoint.exists():
        raise cell.missing("train", f"no checkpoint in {cell.folder}")
    return checkpoint


def _key(cell: CellContext) -> str:
    trained = cell.cache.record.keys.get("train") if trains_here(cell.cfg) else None
    weights = None if is_api(cell.cfg) else cell.backbone_digest()
    return Generate.key(cell.cfg, cell.data_digest(), weights, trained)


def served_identity(cell: CellContext) -> object:
    """Returns what a server holds under its model's name; None where that name says it all."""
    if not starts_server(cell.cfg):
        return _trained_elsewhere(resolved(cell.cfg))
    from cso_lab.training.machine import resolve_auto

    cfg = resolved(resolve_auto(cell.cfg))
    weights = [cell.backbone_digest(), cell.cache.record.keys.get("train")]
    return plain(cfg, "backbone", "serving") | {"dtype": cfg["generation"]["dtype"], "weights": weights}


def _trained_elsewhere(cfg: Config) -> dict | None:
    """Returns the settings by which the checkpoint on a server was trained; None if none was trained, or it is trained here.

    The server cannot identify its checkpoint: the same address and model name may serve another one later. These settings identify it
    instead, and two cells share predictions only if all of them are equal.
    """
    if not trains(cfg) or trains_here(cfg):
        return None
    return {stage.name: stage.settings(cfg) for stage in (Search, Dataset, Train)}
