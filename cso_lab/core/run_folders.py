"""Finds the folders of a run's stages by the run folder's stages.json, also if they were copied from another machine."""

from pathlib import Path

from cso_lab.core.files import read_json

STAGES_FILE = "stages.json"


def stage_folder(run: Path, stage: str) -> Path | None:
    """Returns the folder of a run's stage (see `copied_folder`), or None if stages.json does not name it or it does not exist."""
    file = Path(run) / STAGES_FILE
    path = read_json(file).get(stage) if file.exists() else None
    return copied_folder(run, path) if isinstance(path, str) else None


def copied_folder(run: Path, path: str) -> Path | None:
    """Returns the folder `path` of a run's stages.json or, if run and folder were copied together, the folder near the run.

    Returns None if neither exists.
    """
    tail = Path(*Path(path.replace("\\", "/")).parts[-3:])
    candidates = [Path(path), *(parent / tail for parent in Path(run).resolve().parents)]
    return next((folder for folder in candidates if folder.is_dir()), None)
