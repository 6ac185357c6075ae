"""Opens the model of a run folder, which may be copied from another machine."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.config import CONF
from cso_lab.config.cells import is_decoupled, trains
from cso_lab.config.schema import check_local_generation
from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json
from cso_lab.core.run_folders import STAGES_FILE


def run_configuration(folder: Path, overrides: Sequence[str] = ()) -> DictConfig:
    """Returns the configuration of a run with `overrides`, KEY=VALUE each. Raises UserError if it is missing or an override is invalid."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"no config.yaml in {folder}: give the folder of a run (run.py prints it, and reports name it)")
    cfg = OmegaConf.load(file)
    if cfg.hardware.device == "cuda":
        cfg.hardware.device = "auto"  # this machine may have no GPU
    if not Path(cfg.shared_dir).is_dir():
        cfg.shared_dir = OmegaConf.load(CONF / "config.yaml").shared_dir
    OmegaConf.set_struct(cfg, True)
    if invalid := [override for override in overrides if "=" not in override]:
        raise UserError(f"{invalid[0]!r} is no KEY=VALUE of the run's configuration (see --help)")
    cfg = OmegaConf.merge(cfg, OmegaConf.from_dotlist(list(overrides)))
    check_local_generation(cfg)
    return cfg


def run_checkpoint(folder: Path) -> Path:
    """Returns the run's own checkpoint, or that of the cell whose training it reused, which may be beside it in a copied sweep.

    Raises UserError if there is none, or it is damaged.
    """
    from cso_lab.training.backbone import check_whole

    file = folder / STAGES_FILE
    trained_in = read_json(file).get("train") if file.exists() else None
    reused = [Path(trained_in), folder.resolve().parent / Path(trained_in).name] if trained_in else []
    for candidate in [folder, *reused]:
        if (candidate / "checkpoint").is_dir():
            check_whole(candidate / "checkpoint")
            return candidate / "checkpoint"
    raise UserError(f"no checkpoint in {folder}: run its train stage, or copy the run with its checkpoint folder")


def run_model(cfg: DictConfig, folder: Path) -> tuple[DictConfig, Path | None]:
    """Returns (configuration, adapter checkpoint or None), by which the run's local model is loaded.

    After full training the checkpoint is the backbone of the configuration. Raises UserError as `run_checkpoint` does, and if the run has
    two models.
    """
    from cso_lab.training.backbone import is_adapter

    if is_decoupled(cfg):
        raise UserError(
            f"{folder}: algo={cfg.algorithm.name} is two models that reply in turn, and only one can be opened here"
        )
    checkpoint = run_checkpoint(folder) if trains(cfg) else None
    if checkpoint is None or is_adapter(checkpoint):
        return cfg, checkpoint
    # A full model does not need the weights it was trained from, which may be on another machine.
    cfg = cfg.copy()
    cfg.backbone.path = str(checkpoint)
    return cfg, None
