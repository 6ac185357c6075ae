"""Runs the stages of one cell, alone or in a sweep."""

import sys
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.config.cells import generates_here, is_api, starts_server, trains_here
from cso_lab.core.errors import MissingKey, UserError
from cso_lab.core.files import write_json
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.check import check
from cso_lab.pipeline.conversation_settings import check_players
from cso_lab.pipeline.converse import has_conversed, print_conversation_estimate
from cso_lab.pipeline.dataset import check_negatives
from cso_lab.pipeline.generate import is_generated, print_generation_estimate
from cso_lab.pipeline.inspect import toxicity_scorer
from cso_lab.pipeline.metadata import tracked_cell
from cso_lab.pipeline.plan import print_local_generation_estimate, print_training_estimate
from cso_lab.pipeline.preflight import check_tracking, preflight
from cso_lab.pipeline.rounds import find_supporters, run_earlier_rounds
from cso_lab.pipeline.search import check_role_players, print_estimate
from cso_lab.pipeline.stage import Stage
from cso_lab.pipeline.stages import STAGES
from cso_lab.pipeline.train import check_judge, is_trained
from cso_lab.reporting.cells import FAILED_FILE
from cso_lab.tracking import tracker


def run_cell(cfg: DictConfig, folder: Path, in_sweep: bool) -> None:
    """Runs the stages of one cell into `folder`. In a sweep a failure does not stop the other cells: its reason goes to failed.json."""
    from filelock import FileLock

    try:
        check(cfg)
        if cfg.report.folder:
            return _report_folder(cfg, folder)
        with FileLock(folder / ".lock"):  # the same cell started twice: the second waits, and finds it finished
            folder.joinpath(FAILED_FILE).unlink(missing_ok=True)
            if cfg.estimate:
                return _print_estimates(CellContext(cfg, folder))
            with tracker(cfg.tracking, tracked_cell(cfg, folder)) as tracking:
                run_stages(CellContext(cfg, folder, in_sweep, tracking))
    except Exception as error:
        if not in_sweep:
            raise
        _leave_failure(error, cfg, folder)


def _print_estimates(cell: CellContext) -> None:
    """Print what would be taken: by the search, or generation on a server; by the training; by generation in this process; by
    conversations. Run nothing."""
    from cso_lab.training.hub import offline_unless_reachable

    cfg = cell.cfg
    find_supporters(cell)
    if cfg.conversation.reference is None:
        served = cfg.generation.engine == "server" and not starts_server(cfg) and "generate" in cfg.stages
        (print_generation_estimate if served else print_estimate)(cell)
    with offline_unless_reachable(cfg.backbone.get("path")):
        if "train" in cfg.stages and trains_here(cfg):
            print_training_estimate(cell)
        if "generate" in cfg.stages and generates_here(cfg) and cfg.conversation.reference is None:
            print_local_generation_estimate(cell)
    if "converse" in cfg.stages:
        print_conversation_estimate(cell)


def run_stages(cell: CellContext) -> None:
    """Runs the stages that `cfg.stages` names, in order, after checking for everything that would make one of them fail."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cell.cfg, cell.folder / "config.yaml", resolve=True)
    if cell.cfg.rerun:
        cell.cache.record.keys.clear()
    find_supporters(cell)
    stages = _requested(cell.cfg)
    if any(stage.name == "search" for stage in stages):
        check_role_players(cell.rounds()[0])  # the supporter of a later round is the cell's own model
    if any(stage.name == "dataset" for stage in stages):
        check_negatives(cell)
    if any(stage.name == "converse" for stage in stages):
        check_players(cell.cfg)
    if unfinished := unfinished_stages(cell):
        preflight([(cell.cfg, cell.folder, unfinished)])
    if "train" in unfinished:
        check_judge(cell.cfg)
    if any(stage.name == "inspect" for stage in stages) and (scorer := toxicity_scorer(cell)):
        scorer.check()  # before a search that takes hours, not after it
    if any(stage.name == "search" for stage in stages):
        run_earlier_rounds(cell)
    for stage in stages:
        stage.run(cell)


def unfinished_stages(cell: CellContext) -> list[str]:
    """Returns those of train, converse and generate that are requested and not finished. Writes nothing but a dataset's missing prompts."""
    requested = {stage.name for stage in _requested(cell.cfg)}
    unfinished = [name for name in ("train", "converse", "generate") if name in requested]
    if not unfinished or cell.cfg.rerun:
        return unfinished
    try:
        if "train" in unfinished and is_trained(cell):
            unfinished.remove("train")
        for name, finished in (("converse", has_conversed), ("generate", is_generated)):
            if "train" not in unfinished and name in unfinished and finished(cell):
                unfinished.remove(name)
    except UserError:
        # What an earlier stage leaves is missing. Where that is not run either, the first stage says so.
        return unfinished if {"search", "dataset"} & requested else []
    return unfinished


def preflight_cells(configurations: Iterable[tuple[DictConfig, Path]]) -> None:
    """Checks all cells (configuration, run folder) of a sweep, before the first one runs, for what would make them fail later."""
    cells = [CellContext(cfg, folder) for cfg, folder in configurations if not cfg.estimate]
    for cell in cells:
        check_tracking(cell.cfg, cell.folder)
    for cell in cells:
        find_supporters(cell)
    preflight([(cell.cfg, cell.folder, unfinished_stages(cell)) for cell in cells])


def _requested(cfg: DictConfig) -> list[Stage]:
    """Returns the stages that `cfg.stages` names and that this cell has."""
    named = [stage for stage in STAGES if stage.name in cfg.stages]
    if cfg.conversation.reference is not None:
        return [stage for stage in named if stage.of_reference]
    return [stage for stage in named if trains_here(cfg) or not stage.of_training]


def _report_folder(cfg: DictConfig, folder: Path) -> None:
    from cso_lab.reporting.sweeps import report_again

    if not report_again(cfg, folder):
        raise SystemExit(1)


def _leave_failure(error: Exception, cfg: DictConfig, folder: Path) -> None:
    from cso_lab.config.error_messages import explain_or_show, type_and_message

    explanation = explain_or_show(error)
    reason = str(explanation or type_and_message(error))
    write_json(folder / FAILED_FILE, {"reason": reason, "needs_key": isinstance(explanation, MissingKey) and is_api(cfg)})
    print(f"error: {folder.name}: {reason}", file=sys.stderr)
