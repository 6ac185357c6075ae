"""Where the stages of a run have their files, read from a run folder that may have been copied from another machine."""

from pathlib import Path

from cso_lab.core.files import read_json

STAGES_FILE = "stages.json"


def stage_folder(run: Path, stage: str) -> Path | None:
    """Returns the folder that the run's stages.json names for a stage, or its copy beside the run; None where there is neither."""
    file = Path(run) / STAGES_FILE
    named = read_json(file).get(stage) if file.exists() else None
    return copied_folder(run, named) if isinstance(named, str) else None


def copied_folder(run: Path, named: str) -> Path | None:
    """Returns the folder `named`, or where that does not exist, the one with the same last three parts beside or above the run."""
    tail = Path(*Path(named.replace("\\", "/")).parts[-3:])
    candidates = [Path(named), *(parent / tail for parent in Path(run).resolve().parents)]
    return next((folder for folder in candidates if folder.is_dir()), None)
