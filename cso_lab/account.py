"""The account a run folder keeps: what is finished, by which identity, where its files lie, and what made it."""

import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import DictConfig

from cso_lab.core.run_folders import STAGES_FILE
from cso_lab.errors import UserError
from cso_lab.files import read_json, write_json
from cso_lab.tracking import NoTracker, Tracker

_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "litellm", "hydra-core")
# What a stage leaves in the run folder while it is under way.
_LEFTOVERS = {"train": ("checkpoint", "steps", "train_log.jsonl", "workers"), "generate": (".predictions.jsonl.partial",)}


class Account:
    """What a cell has done: `run.json` (identities, seconds, versions) and `stages.json` (where each stage has its files)."""

    def __init__(self, cfg: DictConfig, folder: Path, tracking: Tracker | None = None):
        self.cfg, self.folder = cfg, folder
        self.tracking = tracking or NoTracker()
        self._record_file = folder / "run.json"
        self.record = read_json(self._record_file) if self._record_file.exists() else {"identities": {}, "seconds": {}}

    def _shared(self, stage: str, folder: Path, work: Callable[[], bool]) -> Path:
        """Do `work` in a shared folder unless it is done, one process at a time; it returns whether nothing is left to do."""
        from filelock import FileLock

        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not done(folder):
                began = time.perf_counter()
                self.tracking.stage_started(stage, folder)
                if work():
                    write_json(folder / "done.json", {"seconds": round(time.perf_counter() - began, 1), **_versions()})
        self._leave(stage, folder)
        return folder

    def _finished(self, stage: str, identity: str, result: Path) -> bool:
        """Whether the run folder holds this stage's result for this very configuration, data and code."""
        if finished := self._has(stage, identity, result):
            self._leave(stage, self.folder)
        return finished

    def _has(self, stage: str, identity: str, result: Path) -> bool:
        return self.record["identities"].get(stage) == identity and result.exists()

    def _sibling(self, stage: str, identity: str, result: str) -> Path | None:
        """A cell beside this one that has this very result: cells may differ in nothing but what comes after a stage."""
        for file in sorted(self.folder.parent.glob("*/run.json")):
            if file.parent != self.folder and (file.parent / result).exists():
                if read_json(file)["identities"].get(stage) == identity:
                    return file.parent
        return None

    def _taken_over(self, stage: str, identity: str, result: str) -> Path | None:
        """The sibling whose result is this cell's too, noted as such; None when there is none, or it is to be done again."""
        sibling = None if self.cfg.rerun else self._sibling(stage, identity, result)
        if sibling:
            self.record["identities"][stage] = identity
            self._leave(stage, sibling)
        return sibling

    @contextmanager
    def _timed(self, stage: str, identity: str, discard: tuple[str, ...] = ()):
        """Around the work of a cell's own stage. What another configuration left half done in the folder is not continued."""
        under_way = self.folder / f".{stage}"
        if not under_way.exists() or under_way.read_text() != identity:
            for name in (*discard, *_LEFTOVERS.get(stage, ())):
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            under_way.write_text(identity)
        self.record["identities"].pop(stage, None)
        self.tracking.stage_started(stage, self.folder)
        began = time.perf_counter()
        yield
        under_way.unlink()
        self.record["identities"][stage] = identity
        self.record["seconds"][stage] = round(time.perf_counter() - began, 1)
        self.record |= {"seed": self.cfg.seed, "overrides": overrides(), **_versions()}
        self._leave(stage, self.folder)

    def left(self, stage: str) -> Path:
        """Where a stage has left its files; the run folder as long as it has not run."""
        file = self.folder / STAGES_FILE
        return Path((read_json(file) if file.exists() else {}).get(stage, self.folder))

    def _leave(self, stage: str, folder: Path) -> None:
        """Note in the run folder where a stage has its files."""
        file = self.folder / STAGES_FILE
        write_json(file, (read_json(file) if file.exists() else {}) | {stage: str(folder.resolve())})
        write_json(self._record_file, self.record)
        self.tracking.stage_finished(stage, folder)

    def _missing(self, stages: str, what: str, parts: list[str] | None = None) -> UserError:
        """What is missing and the command that makes it; `parts` are those of a search that are still to be run."""
        typed = [o for o in overrides() if not o.startswith("stages=") and not (parts and o.startswith("data.shard="))]
        if parts:
            typed.append(f"data.shard={','.join(parts)}")
        command = " ".join(
            [
                "python run.py -m" if parts and len(parts) > 1 else "python run.py",
                f"'stages=[{stages}]'",
                *(f"'{o}'" if "[" in o or " " in o else o for o in typed),
            ]
        )
        return UserError(f"{what}; make them with: {command}")


def done(folder: Path) -> bool:
    return (folder / "done.json").exists()


def overrides() -> list[str]:
    """What was typed for this run, as Hydra knows it."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _versions() -> dict:
    """Versions of the packages and the commit of the project, as far as they can be told."""

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return {"versions": {package: installed(package) for package in _PACKAGES}, "commit": git.stdout.strip() or None}
