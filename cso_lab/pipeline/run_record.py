"""The record of a run in its folder: `run.json` (keys of results, seconds, versions) and `stages.json` (the folder of each stage)."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cso_lab.core.files import read_json, write_json
from cso_lab.core.run_folders import STAGES_FILE

RECORD_FILE = "run.json"
_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "litellm", "hydra-core")


class RunRecord:
    """The record of one run folder. Nothing is written before `note_folder` or `save`."""

    def __init__(self, folder: Path):
        self.folder = folder
        file = folder / RECORD_FILE
        self._record = read_json(file) if file.exists() else {"identities": {}, "seconds": {}}

    @property
    def keys(self) -> dict[str, str]:
        """The key of the result that each stage has left in this folder, by stage."""
        return self._record["identities"]

    def finish(self, stage: str, key: str, seconds: float, **details: object) -> None:
        """Records that a stage has finished the result with this key; `details` are written beside the versions in use."""
        self.keys[stage] = key
        self._record["seconds"][stage] = round(seconds, 1)
        self._record |= {**details, **versions()}

    def stage_folder(self, stage: str) -> Path:
        """Returns the folder that holds a stage's files; the run folder as long as the stage has not run."""
        return Path(self._folders().get(stage, self.folder))

    def note_folder(self, stage: str, folder: Path) -> None:
        """Records the folder of a stage's files, and saves the record."""
        write_json(self.folder / STAGES_FILE, self._folders() | {stage: str(folder.resolve())})
        write_json(self.folder / RECORD_FILE, self._record)

    def _folders(self) -> dict[str, str]:
        file = self.folder / STAGES_FILE
        return read_json(file) if file.exists() else {}


def typed_overrides() -> list[str]:
    """Returns the overrides typed for this run, as Hydra knows them; none outside of a Hydra run."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def versions() -> dict:
    """Returns {versions: {package: version or None}, commit: the project's commit or None}."""

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return {"versions": {package: installed(package) for package in _PACKAGES}, "commit": git.stdout.strip() or None}
