"""A cell as one W&B run: opened when work begins, finished whatever happens, and not opened where it would say nothing new."""

import os
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cso_lab import naming
from cso_lab.errors import UserError
from cso_lab.files import read_json, write_json
from cso_lab.tracking import TrackedCell
from cso_lab.tracking.contents import CONTENTS, STEP_LOGS, Artifact, is_number, pictures, steps_after
from cso_lab.tracking.credentials import first_line, set_up, settled_mode
from cso_lab.tracking.figures import drawn
from cso_lab.tracking.poller import Follow

# Its own files, wandb's own name for it, below the run folder.
FOLDER, NOTE = "wandb", "cell.json"
# What the numbers of a stage under way are drawn over.
_AXES = {"train": "train/step", "start": "start/step", "search": "search/seconds"}


class WandbTracker:
    """See conf/tracking/wandb.yaml for the settings.

    The run's id stands in the run folder, so that the same command goes on with the same run. A cell that was finished before and
    is in W&B as it is opens none.
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
        self._cell, self._asked, self._mode = cell, mode, settled_mode(mode)
        self._where = {"project": project, "entity": entity, "group": group or cell.group, "tags": [*cell.tags, *tags]}
        self._log_artifacts, self._megabytes, self._rows = log_artifacts, files_up_to_mb, prediction_rows
        self._run = self._follow = None
        # {stage: folder} of those that have their files, and which of them are in W&B already.
        self._left: dict[str, Path] = {}
        self._shown: set[str] = set()
        self._begun: set[str] = set()
        self._note_file = cell.folder / FOLDER / NOTE
        known = self._note_file.exists() and not cell.anew
        # "steps": the last step of each stage that is in W&B; "content": what of the cell is.
        self._note = read_json(self._note_file) if known else {"id": None, "steps": {}, "content": None}

    def __enter__(self) -> "WandbTracker":
        return self

    def begins(self, stage: str, folder: Path) -> None:
        run = self._open()
        self._begun.add(stage)
        self._left.pop(stage, None)
        self._shown.discard(stage)
        run.summary["stage"] = stage
        if name := STEP_LOGS.get(stage):
            if not (folder / name).exists():  # from the start, not from a checkpoint
                self._note["steps"].pop(stage, None)
            self._follow = Follow(lambda: self._steps(stage, folder))
            self._follow.start()

    def watch(self, stage: str, numbers: Mapping[str, float]) -> None:
        self._open().log({f"{stage}/{name}": value for name, value in numbers.items()})

    def left(self, stage: str, folder: Path) -> None:
        self._unfollow()
        if stage not in CONTENTS:
            return
        if self._left.get(stage) != folder:
            self._shown.discard(stage)
        self._left[stage] = folder
        if self._run is not None:
            self._show()

    def __exit__(self, kind, error, traceback) -> None:
        try:
            self._close(error)
        except Exception as trouble:
            if error is None:
                raise
            print(f"W&B: {trouble}", file=sys.stderr)  # what stopped the cell matters more

    def _close(self, error: BaseException | None) -> None:
        self._take_earlier_stages()
        content = self._content()
        try:
            self._unfollow()
            if error is not None or self._note["content"] != content:
                self._open()
            if self._run is None:
                print("W&B: nothing new to show of this cell")
                return
            self._show()
            self._pictures()
            self._run.summary.update({"stage": "finished" if error is None else "failed", "failed": _reason(error)})
            self._note["content"] = content if error is None else None
            write_json(self._note_file, self._note)
        finally:
            if self._run is not None:
                self._run.finish(exit_code=_exit_code(error))
                self._run = None

    def _take_earlier_stages(self) -> None:
        """What earlier commands have left for this cell belongs to it as well, but for what was begun again and has not ended."""
        file = self._cell.folder / "stages.json"
        for stage, place in (read_json(file) if file.exists() else {}).items():
            if stage in CONTENTS and stage not in self._begun and Path(place).is_dir():
                self._left.setdefault(stage, Path(place))

    def _content(self) -> str:
        """What the cell has to show and where: the identities of its own results, and the folders of shared ones."""
        record = self._cell.folder / "run.json"
        identities = read_json(record)["identities"] if record.exists() else {}
        return naming.digest(
            [self._mode, self._where, identities, {stage: folder.name for stage, folder in self._left.items()}]
        )

    def _open(self):
        if self._run is None:
            self._note["id"] = self._note["id"] or uuid.uuid4().hex[:12]
            self._note_file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._note_file, self._note)
            self._run = self._started()
            for stage, axis in _AXES.items():
                self._run.define_metric(axis)
                self._run.define_metric(f"{stage}/*", step_metric=axis)
            place = f"offline; to send it: wandb sync {self._run.settings.sync_dir}" if self._run.offline else self._run.url
            print(f"W&B: {self._cell.name}: {place}")
            self._show()
        return self._run

    def _started(self):
        """The run, offline where `mode=auto` finds the server out of reach: no cell is lost for want of a network."""
        import wandb

        def start(mode: str):
            # Neither the command line nor the terminal is sent: an address on it may hold a password. Nor is the machine described.
            unsaid = {"x_disable_meta": True, "x_disable_machine_info": True, "disable_git": True, "disable_code": True}
            quiet = wandb.Settings(quiet=True, console="off", **unsaid)
            known = {"id": self._note["id"], "resume": "allow", "name": self._cell.name, "config": dict(self._cell.config)}
            return wandb.init(**self._where, **known, mode=mode, dir=self._cell.folder, settings=quiet)

        try:
            return start(self._mode)
        except wandb.errors.Error as error:
            if self._mode != "online" or self._asked != "auto":
                raise UserError(f"W&B: {first_line(error)}; tracking=none or tracking.mode=offline runs without") from None
            print(f"W&B: {first_line(error)}; going on offline", file=sys.stderr)
            wandb.teardown()  # it still holds the run's id
            set_up()
            self._mode = "offline"
            return start(self._mode)

    def _show(self) -> None:
        for stage, folder in self._left.items():
            if stage not in self._shown:
                self._shown.add(stage)
                self._steps(stage, folder)
                self._show_stage(stage, folder)

    def _show_stage(self, stage: str, folder: Path) -> None:
        import wandb

        content = CONTENTS[stage](folder, self._cell)
        self._run.summary.update(content.summary)
        shown = {name: wandb.Image(drawn(figure)) for name, figure in content.figures.items()}
        for name, table in content.tables.items():
            rows = table.rows[: self._rows] if name == "predictions" else table.rows
            shown[name] = wandb.Table(columns=table.columns, data=rows, allow_mixed_types=True)
        with self._staging():
            if shown:
                self._run.log(shown)
            if content.artifact and content.artifact.files and self._log_artifacts:
                self._run.log_artifact(self._artifact(content.artifact))

    def _artifact(self, artifact: Artifact):
        """Its files, read from where they lie when they are sent; of a large one only the place is kept."""
        import wandb

        large = self._megabytes is not None and artifact.megabytes > self._megabytes
        made = wandb.Artifact(
            artifact.name, artifact.kind, metadata={"megabytes": artifact.megabytes, "root": str(artifact.root)}
        )
        for file in artifact.files:
            name = file.relative_to(artifact.root).as_posix()
            if large:
                made.add_reference(file.resolve().as_uri(), name, checksum=False)
            else:
                made.add_file(str(file), name, policy="immutable")
        return made

    def _pictures(self) -> None:
        import wandb

        found: dict[str, Path] = {}
        for folder in {self._cell.folder, *self._left.values()}:
            found |= pictures(folder)
        if found:
            self._run.log({name: wandb.Image(str(file)) for name, file in found.items()})

    def _steps(self, stage: str, folder: Path) -> None:
        """The steps that are not in W&B yet, from the file in which a training logs them, in however many processes it runs."""
        if stage in STEP_LOGS:
            for entry in steps_after(folder / STEP_LOGS[stage], self._note["steps"].get(stage, 0)):
                self._run.log({f"{stage}/{name}": value for name, value in entry.items() if is_number(value)})
                self._note["steps"][stage] = entry["step"]

    def _unfollow(self) -> None:
        if self._follow is not None:
            follow, self._follow = self._follow, None
            follow.stop()

    @contextmanager
    def _staging(self) -> Iterator[None]:
        """Copies that wandb makes of files (tables, and they alone) lie below the run folder as well, where nothing else was said."""
        before = os.environ.get("WANDB_DATA_DIR")
        os.environ["WANDB_DATA_DIR"] = before or str((self._cell.folder / FOLDER).resolve())
        try:
            yield
        finally:
            if before is None:
                del os.environ["WANDB_DATA_DIR"]


def _exit_code(error: BaseException | None) -> int:
    """As a shell would see it: 130 after Ctrl-C, 1 after any failure."""
    return 0 if error is None else 130 if isinstance(error, KeyboardInterrupt) else 1


def _reason(error: BaseException | None) -> str | None:
    """Why the cell has failed, in a line; None when it has not."""
    if error is None:
        return None
    from cso_lab.explain import explain

    known = explain(error) if isinstance(error, Exception) else None
    return str(known or f"{type(error).__name__}: {error}".rstrip(": "))
