"""A data set of the model hub as one file of one revision, in the hub's own cache. Runs none of its code."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.corpora.formats import DATA_SUFFIXES, TEXT_SUFFIXES

_SCHEME = "hf://datasets/"
_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[^@]+))?")
_TIMEOUT = 10.0


@dataclass(frozen=True)
class HubFile:
    """A data set's repository, the revision asked for and the file; None: the newest, and the one that is chosen."""

    repository: str
    revision: str | None = None
    file: str | None = None

    def at(self, revision: str) -> "HubFile":
        return replace(self, revision=revision)

    def address(self, file: str) -> str:
        """What `data.path` is for a file of this revision."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{_SCHEME}{self.repository}{revision}/{file}"


@dataclass(frozen=True)
class Fetched:
    """A file on this disk, its name within the data set, and the commit it is of."""

    path: Path
    name: str
    revision: str


def hub_name(given: str) -> HubFile | None:
    """What OWNER/NAME[@REVISION] or hf://datasets/OWNER/NAME[@REVISION][/FILE] asks for; None where it is no such name."""
    match = _NAME.fullmatch(given.removeprefix(_SCHEME))
    if match is None or (
        not given.startswith(_SCHEME) and (match["file"] or Path(given).suffix in DATA_SUFFIXES | TEXT_SUFFIXES)
    ):
        return None
    if set(given.removeprefix(_SCHEME).split("/")) & {".", ".."}:
        return None
    return HubFile(match["repository"], match["revision"], match["file"])


def hub_file(key: str, given: str, name: HubFile, pick: Callable[[Sequence[str], str, bool], str]) -> Fetched:
    """The file `name` asks for, or that which `pick` chooses from (file names, revision, whether these are all there are).

    Asks the hub which commit a branch stands for now, once in a process; where the hub cannot be reached, takes what the cache holds and
    says so. Raises UserError if it cannot be had.
    """
    revision, files, complete = _listing(key, given, name.repository, name.revision)
    chosen = name.file or pick(files, revision, complete)
    if not complete and chosen not in files:
        raise UserError(f"{key}={given}: the hub cannot be reached, and its cache holds no {chosen}")
    path = _download(key, given, name.repository, name.revision or "main", chosen)
    return Fetched(path, chosen, _commit(path))


@cache
def _listing(key: str, given: str, repository: str, revision: str | None) -> tuple[str, tuple[str, ...], bool]:
    """(commit, names of its files, whether those are all it has)."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        info = HfApi().dataset_info(repository, revision=revision, timeout=_TIMEOUT)
        return info.sha, tuple(sibling.rfilename for sibling in info.siblings or ()), True
    except Exception as error:  # of many kinds, from several libraries
        if not _unreachable(error):
            raise _not_there(key, given, error) from None
        reason = error
    try:
        folder = Path(snapshot_download(repository, repo_type="dataset", revision=revision, local_files_only=True))
    except Exception:
        raise _not_there(key, given, reason) from None
    files = tuple(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()))
    print(f"{key}={given}: the hub cannot be reached; its cache holds revision {folder.name}, which is used", file=sys.stderr)
    return folder.name, files, False


@cache
def _download(key: str, given: str, repository: str, revision: str, file: str) -> Path:
    """The file in the cache, which also notes the commit that `revision` stands for, so that it is found when the hub is out of reach."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision))
    except Exception as error:
        raise _not_there(key, given, error) from None


def _commit(path: Path) -> str:
    """Of a file .../snapshots/COMMIT/FILE of the hub's cache."""
    return path.parts[path.parts.index("snapshots") + 1]


def _unreachable(error: Exception) -> bool:
    """Whether the hub gave no answer, or one that says that it is out of order."""
    import httpx

    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(error, httpx.TransportError | ConnectionError | TimeoutError) or (status is not None and status >= 500)


def _not_there(key: str, given: str, error: Exception) -> UserError:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{key}={given}: no such file, and the hub gives no data set of that name ({first})")
