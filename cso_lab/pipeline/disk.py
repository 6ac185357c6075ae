"""Checks that the disks have room for the files of a run."""

import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cso_lab.core.errors import UserError


@dataclass(frozen=True)
class Need:
    """The space that files will take below `folder`, in bytes: `permanent`, and from `temporary` to `max_temporary` for a time.

    Temporary files of different needs do not exist at the same time.
    """

    name: str
    folder: Path
    permanent: int
    temporary: int = 0
    max_temporary: int = 0


def check_room(needs: Iterable[Need]) -> None:
    """Raises UserError if a disk is too full for what will be written at least; warns on stderr if it may become too full."""
    for disk, disk_needs in _by_disk(needs).items():
        free = shutil.disk_usage(disk).free
        permanent = sum(need.permanent for need in disk_needs)
        least = permanent + max(need.temporary for need in disk_needs)
        most = permanent + max(need.max_temporary for need in disk_needs)
        names = ", ".join(dict.fromkeys(need.name for need in disk_needs))
        if least > free:
            raise UserError(
                f"{disk}: {_size(free)} free, but this writes at least {_size(least)} there ({names}): make room, or choose other folders"
                " with hydra.run.dir, hydra.sweep.dir, shared_dir and HF_HOME"
            )
        if most > free:
            print(
                f"{disk}: {_size(free)} free, and this may write up to {_size(most)} there ({names}, with the saved steps of the"
                " training under way)",
                file=sys.stderr,
            )


def _by_disk(needs: Iterable[Need]) -> dict[Path, list[Need]]:
    """Returns {disk: its needs}; a disk is named by the first folder on it."""
    disks: dict[int, Path] = {}
    grouped = defaultdict(list)
    for need in needs:
        if need.permanent or need.max_temporary:
            folder = need.folder.resolve()
            folder = next(parent for parent in (folder, *folder.parents) if parent.exists())
            grouped[disks.setdefault(folder.stat().st_dev, folder)].append(need)
    return grouped


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
