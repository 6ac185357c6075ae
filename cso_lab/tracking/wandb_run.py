"""A cell as one W&B run: opened when a stage starts, finished also after a failure, and not opened where nothing is new."""

import os
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json
from cso_lab.core.hashing import digest
from cso_lab.tracking import TrackedCell
from cso_lab.tracking.contents import CONTENTS, CURVE, CURVE_AXIS, STEP_LOGS, Artifact, image_files, is_number, steps_after
from cso_lab.tracking.credentials import check_names, first_line, resolve_mode, set_up_wandb
from cso_lab.tracking.figures import as_image
from cso_lab.tracking.poller import Poller

# The folder that wandb writes to, within the run folder, and our record of what has been logged.
FOLDER, RECORD = "wandb", "cell.json"
# {stage, or curve: the horizontal axis of its numbers}.
_AXES = {"train": "train/step", "start": "start/step", "search": "search/seconds", CURVE: CURVE_AXIS}


class WandbTracker:
    """Logs a cell to W&B; conf/tracking/wandb.yaml explains the settings.

    The run's id is kept in the run folder, so that the same command continues the same run. A cell whose results are in W&B
    already opens no run. Raises UserError if W&B cannot be used as `mode` asks.
    """

    def __init__(
        self,
        cell: TrackedCell,
        *,
        mode: str,
        project: str,
        entity: str | None,
        group: str | None,
        tags: Sequence[str],
        log_artifacts: bool,
        files_up_to_mb: float | None,
        prediction_rows: int | None,
    ):
        self._where = {"project": project, "entity": entity, "group": group or cell.group, "tags": [*cell.tags, *tags]}
        check_names(project, self._where["tags"], entity=entity, run_group=self._where["group"])
        self._cell, self._wanted_mode, self._mode = cell, mode, resolve_mode(mode)
        self._log_artifacts, self._megabytes, self._rows = log_artifacts, files_up_to_mb, prediction_rows
        self._run = self._poller = None
        # {stage: folder} of finished stages, those of them that are logged, and those that this process started.
        self._finished: dict[str, Path] = {}
        self._logged: set[str] = set()
        self._started_now: set[str] = set()
        self._record_file = cell.folder / FOLDER / RECORD
        recorded = self._record_file.exists() and not cell.rerun
        # "steps": the last logged step of each stage; "curves": a hash of each stage's logged curve; "content": of all logged results.
        self._record = read_json(self._record_file) if recorded else {"id": None, "steps": {}, "content": None}

    def __enter__(self) -> "WandbTracker":
        return self

    def stage_started(self, stage: str, folder: Path) -> None:
        """Opens the run, and follows the stage's log of steps, if it has one."""
        run = self._open()
        self._started_now.add(stage)
        self._finished.pop(stage, None)
        self._logged.discard(stage)
        run.summary["stage"] = stage
        if name := STEP_LOGS.get(stage):
            if not (folder / name).exists():  # it starts at step 0, not from a saved state
                self._record["steps"].pop(stage, None)
            self._poller = Poller(lambda: self._log_steps(stage, folder))
            self._poller.start()

    def log(self, stage: str, numbers: Mapping[str, float]) -> None:
        """Logs numbers under STAGE/NAME."""
        self._open().log({f"{stage}/{name}": value for name, value in numbers.items()})

    def stage_finished(self, stage: str, folder: Path) -> None:
        """Logs the stage's results if the run is open; otherwise they are logged once it is."""
        self._stop_polling()
        if stage not in CONTENTS:
            return
        if self._finished.get(stage) != folder:
            self._logged.discard(stage)
        self._finished[stage] = folder
        if self._run is not None:
            self._log_stages()

    def __exit__(self, kind, error, traceback) -> None:
        try:
            self._close(error)
        except Exception as failure:
            if error is None:
                raise
            print(f"W&B: {failure}", file=sys.stderr)  # the error of the cell matters more

    def _close(self, error: BaseException | None) -> None:
        self._add_earlier_stages()
        content = self._content()
        try:
            self._stop_polling()
            if error is not None or self._record["content"] != content:
                self._open()
            if self._run is None:
                print("W&B: nothing new to show of this cell")
                return
            self._log_stages()
            self._log_images()
            self._run.summary.update({"stage": "finished" if error is None else "failed", "failed": _reason(error)})
            self._record["content"] = content if error is None else None
            write_json(self._record_file, self._record)
        finally:
            if self._run is not None:
                self._run.finish(exit_code=_exit_code(error))
                self._run = None

    def _add_earlier_stages(self) -> None:
        """Adds the stages that earlier commands finished, but for those that were started again and did not finish."""
        file = self._cell.folder / "stages.json"
        for stage, folder in (read_json(file) if file.exists() else {}).items():
            if stage in CONTENTS and stage not in self._started_now and Path(folder).is_dir():
                self._finished.setdefault(stage, Path(folder))

    def _content(self) -> str:
        """Returns a hash of what is logged and where: the cell's results by their cache keys, and the folders of shared ones."""
        record = self._cell.folder / "run.json"
        identities = read_json(record)["identities"] if record.exists() else {}
        return digest([self._mode, self._where, identities, {stage: folder.name for stage, folder in self._finished.items()}])

    def _open(self):
        if self._run is None:
            self._record["id"] = self._record["id"] or uuid.uuid4().hex[:12]
            self._record_file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._record_file, self._record)
            self._run = self._start()
            for stage, axis in _AXES.items():
                self._run.define_metric(axis)
                self._run.define_metric(f"{stage}/*", step_metric=axis)
            location = f"offline; to send it: wandb sync {self._run.settings.sync_dir}" if self._run.offline else self._run.url
            print(f"W&B: {self._cell.name}: {location}")
            self._log_stages()
        return self._run

    def _start(self):
        """Returns the opened run; with `mode=auto` it is offline where the server cannot be reached, so that no cell fails for that."""
        import wandb

        def start(mode: str):
            # Neither command line nor terminal are sent, since an address in them may hold a password; nor is the machine described.
            private = {"x_disable_meta": True, "x_disable_machine_info": True, "disable_git": True, "disable_code": True}
            quiet = wandb.Settings(quiet=True, console="off", **private)
            identity = {"id": self._record["id"], "resume": "allow", "name": self._cell.name, "config": dict(self._cell.config)}
            return wandb.init(**self._where, **identity, mode=mode, dir=self._cell.folder, settings=quiet)

        try:
            return start(self._mode)
        except wandb.errors.Error as error:
            if self._mode != "online" or self._wanted_mode != "auto":
                without = "tracking=none or tracking.mode=offline" if self._mode == "online" else "tracking=none"
                raise UserError(f"W&B: {first_line(error)}; {without} runs without") from None
            print(f"W&B: {first_line(error)}; going on offline", file=sys.stderr)
            wandb.teardown()  # it still holds the run's id
            set_up_wandb()
            self._mode = "offline"
            return start(self._mode)

    def _log_stages(self) -> None:
        for stage, folder in self._finished.items():
            if stage not in self._logged:
                self._logged.add(stage)
                self._log_steps(stage, folder)
                self._log_stage(stage, folder)

    def _log_stage(self, stage: str, folder: Path) -> None:
        import wandb

        content = CONTENTS[stage](folder, self._cell)
        self._run.summary.update(content.summary)
        self._log_curve(stage, content.curve)
        logged = {name: wandb.Image(as_image(figure)) for name, figure in content.figures.items()}
        for name, table in content.tables.items():
            rows = table.rows[: self._rows] if name == "predictions" else table.rows
            logged[name] = wandb.Table(columns=table.header, data=rows, allow_mixed_types=True)
        with self._staging():
            if logged:
                self._run.log(logged)
            if content.artifact and content.artifact.files and self._log_artifacts:
                self._run.log_artifact(self._artifact(content.artifact))

    def _log_curve(self, stage: str, curve: Sequence[Mapping[str, float]]) -> None:
        """Log the points of a stage's curve, unless they are in W&B already."""
        logged = self._record.setdefault("curves", {})
        if curve and logged.get(stage) != digest(curve):
            for point in curve:
                self._run.log(dict(point))
            logged[stage] = digest(curve)

    def _artifact(self, artifact: Artifact):
        """Returns the artifact of wandb; its files are read where they are, and of a large artifact only their address is kept."""
        import wandb

        large = self._megabytes is not None and artifact.megabytes > self._megabytes
        logged = wandb.Artifact(
            artifact.name, artifact.kind, metadata={"megabytes": artifact.megabytes, "root": str(artifact.root)}
        )
        for file in artifact.files:
            name = file.relative_to(artifact.root).as_posix()
            if large:
                logged.add_reference(file.resolve().as_uri(), name, checksum=False)
            else:
                logged.add_file(str(file), name, policy="immutable")
        return logged

    def _log_images(self) -> None:
        import wandb

        files: dict[str, Path] = {}
        for folder in {self._cell.folder, *self._finished.values()}:
            files |= image_files(folder)
        if files:
            self._run.log({name: wandb.Image(str(file)) for name, file in files.items()})

    def _log_steps(self, stage: str, folder: Path) -> None:
        """Logs the steps that are not in W&B yet, from the file that a training logs them in, however many processes it has."""
        if stage in STEP_LOGS:
            for entry in steps_after(folder / STEP_LOGS[stage], self._record["steps"].get(stage, 0)):
                self._run.log({f"{stage}/{name}": value for name, value in entry.items() if is_number(value)})
                self._record["steps"][stage] = entry["step"]

    def _stop_polling(self) -> None:
        if self._poller is not None:
            poller, self._poller = self._poller, None
            poller.stop()

    @contextmanager
    def _staging(self) -> Iterator[None]:
        """Keeps the copies that wandb makes of tables within the run folder too, unless WANDB_DATA_DIR says otherwise."""
        before = os.environ.get("WANDB_DATA_DIR")
        os.environ["WANDB_DATA_DIR"] = before or str((self._cell.folder / FOLDER).resolve())
        try:
            yield
        finally:
            if before is None:
                del os.environ["WANDB_DATA_DIR"]


def _exit_code(error: BaseException | None) -> int:
    """Returns the exit code of a shell: 130 after Ctrl-C, 1 after any other failure."""
    return 0 if error is None else 130 if isinstance(error, KeyboardInterrupt) else 1


def _reason(error: BaseException | None) -> str | None:
    """Returns why the cell failed in one line, None if it did not."""
    if error is None:
        return None
    from cso_lab.config.error_messages import explain

    explanation = explain(error) if isinstance(error, Exception) else None
    return str(explanation or f"{type(error).__name__}: {error}".rstrip(": "))
