"""Finds the finished results of stages and stores new ones: folders named by keys, locks, done marks and the run's record."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from cso_lab.core.files import read_json, write_json
from cso_lab.pipeline.run_record import RECORD_FILE, RunRecord, typed_overrides, versions
from cso_lab.tracking import NoTracker, Tracker


class StageCache:
    """The cache of one cell. A result is shared (one folder below `shared_dir` for all cells) or the cell's own (in its run folder).

    A result is found by its key, see `Result.key`. A finished one is never computed again, also not by two processes at once.
    """

    def __init__(self, cfg: DictConfig, folder: Path, tracker: Tracker | None = None):
        self.folder, self.record, self.tracker = folder, RunRecord(folder), tracker or NoTracker()
        self._rerun, self._seed, self._shared_dir = cfg.rerun, cfg.seed, Path(cfg.shared_dir)

    def shared_folder(self, name: str, key: str) -> Path:
        """Returns the folder of a shared result; it need not exist."""
        return self._shared_dir.resolve() / name / key

    def compute_shared(self, stage: str, folder: Path, work: Callable[[], bool]) -> None:
        """Calls `work` to fill a shared folder unless it is done, in one process at a time. It returns whether the result is complete."""
        from filelock import FileLock

        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not is_done(folder):
                start = time.perf_counter()
                self.tracker.stage_started(stage, folder)
                if work():
                    write_json(folder / "done.json", {"seconds": round(time.perf_counter() - start, 1), **versions()})
        self.note_folder(stage, folder)

    def has_own(self, stage: str, key: str, result: str) -> bool:
        """Returns whether the run folder holds the file or folder `result` with this key."""
        return self.record.keys.get(stage) == key and (self.folder / result).exists()

    def find_own(self, stage: str, key: str, result: str) -> bool:
        """Returns what `has_own` returns, and records an existing result as this run's."""
        if finished := self.has_own(stage, key, result):
            self.note_folder(stage, self.folder)
        return finished

    def find_sibling(self, stage: str, key: str, result: str) -> Path | None:
        """Returns the folder of a sibling cell that has the result with this key, as cells may differ in later stages alone; or None."""
        for file in sorted(self.folder.parent.glob(f"*/{RECORD_FILE}")):
            if file.parent != self.folder and (file.parent / result).exists():
                if read_json(file)["identities"].get(stage) == key:
                    return file.parent
        return None

    def take_from_sibling(self, stage: str, key: str, result: str) -> Path | None:
        """Returns what `find_sibling` returns, and records it as this run's result. None also if `rerun` is set."""
        sibling = None if self._rerun else self.find_sibling(stage, key, result)
        if sibling:
            self.record.keys[stage] = key
            self.note_folder(stage, sibling)
        return sibling

    @contextmanager
    def compute_own(self, stage: str, key: str, partial: tuple[str, ...], discard: tuple[str, ...] = ()) -> Iterator[None]:
        """Wraps the computation of a result in the run folder, which is recorded as finished at the end.

        `partial`: files and folders from which an interrupted computation continues; they and `discard` are removed if they belong to
        another key.
        """
        under_way = self.folder / f".{stage}"
        if not under_way.exists() or under_way.read_text() != key:
            for name in (*discard, *partial):
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            under_way.write_text(key)
        self.record.keys.pop(stage, None)
        self.tracker.stage_started(stage, self.folder)
        start = time.perf_counter()
        yield
        under_way.unlink()
        self.record.finish(stage, key, time.perf_counter() - start, seed=self._seed, overrides=typed_overrides())
        self.note_folder(stage, self.folder)

    def note_folder(self, stage: str, folder: Path) -> None:
        """Records the folder of a stage's files in the run folder, and notifies the tracker."""
        self.record.note_folder(stage, folder)
        self.tracker.stage_finished(stage, folder)


def is_done(folder: Path) -> bool:
    """Returns whether a shared folder holds a complete result."""
    return (folder / "done.json").exists()
