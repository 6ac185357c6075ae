"""Where a run's stages have their files: stages.json of a run folder, which may have been copied from another machine."""

from pathlib import Path

from cso_lab.core.files import read_json

STAGES_FILE = "stages.json"


def stage_folder(run: Path, stage: str) -> Path | None:
    """Returns the folder that a run's stages.json names for a stage, or where `copied_folder` finds it; None where it is missing."""
    file = Path(run) / STAGES_FILE
    named = read_json(file).get(stage) if file.exists() else None
    return copied_folder(run, named) if isinstance(named, str) else None


def copied_folder(run: Path, named: str) -> Path | None:
    """Returns the folder `named` in a run's stages.json or, where run and folder were copied together, the one near the run.

    None where neither is there.
    """
    tail = Path(*Path(named.replace("\\", "/")).parts[-3:])
    candidates = [Path(named), *(parent / tail for parent in Path(run).resolve().parents)]
    return next((folder for folder in candidates if folder.is_dir()), None)
