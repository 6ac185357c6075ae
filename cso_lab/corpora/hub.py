"""Downloads one file of one revision of a data set on the model hub to the hub's own cache. Runs no code of the data set."""

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
    """A data set's repository, its revision (None: the newest) and the file in it (None: to be chosen)."""

    repository: str
    revision: str | None = None
    file: str | None = None

    def at(self, revision: str) -> "HubFile":
        """Returns the same file at another revision."""
        return replace(self, revision=revision)

    def address(self, file: str) -> str:
        """Returns the value of `data.path` for a file of this revision."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{_SCHEME}{self.repository}{revision}/{file}"


@dataclass(frozen=True)
class Fetched:
    """A downloaded file: its local path, its name in the data set, and its commit."""

    path: Path
    name: str
    revision: str


def hub_name(path_value: str) -> HubFile | None:
    """Parses OWNER/NAME[@REVISION] or hf://datasets/OWNER/NAME[@REVISION][/FILE]; returns None for anything else."""
    match = _NAME.fullmatch(path_value.removeprefix(_SCHEME))
    if match is None or (
        not path_value.startswith(_SCHEME) and (match["file"] or Path(path_value).suffix in DATA_SUFFIXES | TEXT_SUFFIXES)
    ):
        return None
    if set(path_value.removeprefix(_SCHEME).split("/")) & {".", ".."}:
        return None
    return HubFile(match["repository"], match["revision"], match["file"])


def hub_file(key: str, path_value: str, name: HubFile, pick: Callable[[Sequence[str], str, bool], str]) -> Fetched:
    """Returns the file of `name`, or the one that `pick(file names, revision, whether the names are complete)` chooses.

    The hub is asked for the current commit of a branch once a process. If it cannot be reached, the cache is used, with a message on
    stderr. Raises UserError if the file is in neither.
    """
    revision, files, complete = _listing(key, path_value, name.repository, name.revision)
    chosen = name.file or pick(files, revision, complete)
    if not complete and chosen not in files:
        raise UserError(f"{key}={path_value}: the hub cannot be reached, and its cache holds no {chosen}")
    path = _download(key, path_value, name.repository, name.revision or "main", chosen)
    return Fetched(path, chosen, _commit(path))


@cache
def _listing(key: str, path_value: str, repository: str, revision: str | None) -> tuple[str, tuple[str, ...], bool]:
    """Returns the commit, the names of its files, and whether the names are complete."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        info = HfApi().dataset_info(repository, revision=revision, timeout=_TIMEOUT)
        return info.sha, tuple(sibling.rfilename for sibling in info.siblings or ()), True
    except Exception as error:  # the libraries below raise many types of errors
        if not _unreachable(error):
            raise _not_there(key, path_value, error) from None
        reason = error
    try:
        folder = Path(snapshot_download(repository, repo_type="dataset", revision=revision, local_files_only=True))
    except Exception:
        raise _not_there(key, path_value, reason) from None
    files = tuple(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()))
    print(
        f"{key}={path_value}: the hub cannot be reached; its cache holds revision {folder.name}, which is used", file=sys.stderr
    )
    return folder.name, files, False


@cache
def _download(key: str, path_value: str, repository: str, revision: str, file: str) -> Path:
    """Returns the file in the cache; the cache also records the commit of `revision`, for later runs without the hub."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision))
    except Exception as error:
        raise _not_there(key, path_value, error) from None


def _commit(path: Path) -> str:
    """Returns the commit of a file .../snapshots/COMMIT/FILE in the hub's cache."""
    return path.parts[path.parts.index("snapshots") + 1]


def _unreachable(error: Exception) -> bool:
    """Returns whether the hub did not respond, or responded with a server error."""
    import httpx

    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(error, httpx.TransportError | ConnectionError | TimeoutError) or (status is not None and status >= 500)


def _not_there(key: str, path_value: str, error: Exception) -> UserError:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{key}={path_value}: no such file, and the hub gives no data set of that name ({first})")
