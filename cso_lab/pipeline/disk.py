"""Whether the disk has room for what a run will write."""

import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cso_lab.core.errors import UserError


@dataclass(frozen=True)
class Need:
    """What will be written below `folder`: `kept` bytes stay; `passing` are there for a time, and up to `passing_most`.

    Passing files of different needs are not there at once.
    """

    what: str
    folder: Path
    kept: int
    passing: int = 0
    passing_most: int = 0


def check_room(needs: Iterable[Need]) -> None:
    """Raises UserError if a disk has not the room for what will surely be written; warns where it may become too little."""
    for disk, written in _by_disk(needs).items():
        free = shutil.disk_usage(disk).free
        kept = sum(need.kept for need in written)
        least, most = (kept + max(getattr(need, name) for need in written) for name in ("passing", "passing_most"))
        what = ", ".join(dict.fromkeys(need.what for need in written))
        if least > free:
            raise UserError(
                f"{disk}: {_size(free)} free, but this writes at least {_size(least)} there ({what}): make room, or choose other folders"
                " with hydra.run.dir, hydra.sweep.dir, shared_dir and HF_HOME"
            )
        if most > free:
            print(
                f"{disk}: {_size(free)} free, and this may write up to {_size(most)} there ({what}, with the saved steps of the"
                " training under way)",
                file=sys.stderr,
            )


def _by_disk(needs: Iterable[Need]) -> dict[Path, list[Need]]:
    """The needs by the disk they are on, which goes by the first folder found on it."""
    places: dict[int, Path] = {}
    found = defaultdict(list)
    for need in needs:
        if need.kept or need.passing_most:
            folder = need.folder.resolve()
            folder = next(parent for parent in (folder, *folder.parents) if parent.exists())
            found[places.setdefault(folder.stat().st_dev, folder)].append(need)
    return found


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
