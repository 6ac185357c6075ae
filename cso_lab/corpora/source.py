"""Resolves `data.path` and `data.test_path`: a file, the data file of a folder, or that of a data set on the model hub."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath

from cso_lab.core.errors import UserError
from cso_lab.corpora.formats import DATA_SUFFIXES, TEXT_SUFFIXES, is_data_name, is_from_disk
from cso_lab.corpora.hub import HubFile, hub_file, hub_name

# Names of splits that `datasets` recognizes in file names.
_TRAIN = ("train", "training")
_VALIDATION = ("validation", "valid", "dev", "val")
_TEST = ("test", "testing", "eval", "evaluation")


@dataclass(frozen=True)
class Source:
    """A data file (or a folder written by `Dataset.save_to_disk`), and where it was found.

    `within`: the folder or hub data set it was chosen from, None if the file itself was given. `revision`: the commit on the hub.
    `others`: values of `data.test_path` for files beside it that seem to be test dialogues.
    """

    path: Path
    name: str
    within: str | None = None
    revision: str | None = None
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        container = f" of {self.within}" if self.within else ""
        return f"{self.name}{container}" + (f", revision {self.revision}" if self.revision else "")


def data_source(cfg_data: Mapping) -> Source:
    """Returns the source of `data.path`. Raises UserError if there is no such file, or several files could be meant."""
    path_value = given_path(cfg_data, "path")
    if path_value is None:
        raise UserError(f"data={cfg_data.get('name')} needs its file: give data.path=FILE")
    return _source("data.path", path_value, _training_file)


def test_source(cfg_data: Mapping) -> Source | None:
    """Returns the source of `data.test_path`, None if it is not given. Raises UserError as `data_source` does."""
    path_value = given_path(cfg_data, "test_path")
    return None if path_value is None else _source("data.test_path", path_value, _test_file)


def data_file(cfg_data: Mapping) -> Path:
    """Returns the file of `data.path`, or a folder written by `Dataset.save_to_disk`. Raises UserError as `data_source` does."""
    return data_source(cfg_data).path


def given_path(cfg_data: Mapping, key: str) -> str | None:
    """Returns the value of a key that names a file, None if it is not given."""
    from omegaconf import OmegaConf

    if OmegaConf.is_config(cfg_data) and key in cfg_data and OmegaConf.is_missing(cfg_data, key):
        return None
    value = cfg_data.get(key)
    return None if value is None or str(value).strip() in ("", "???") else str(value)


def on_hub(path_value: str) -> bool:
    """Returns whether a path is the name of a data set on the hub and of no local file."""
    return (
        not path_value.startswith("pkg://") and not Path(path_value).expanduser().exists() and hub_name(path_value) is not None
    )


def _source(key: str, path_value: str, choose: Callable[[Sequence[str]], list[str]]) -> Source:
    path = _local(key, path_value)
    if path.is_file():
        return Source(path, str(path_value))
    if path.is_dir():
        return _in_folder(key, path_value, path, choose)
    if on_hub(path_value):
        return _on_hub(key, path_value, hub_name(path_value), choose)
    raise UserError(f"{key}={path_value}: no such file; give {key}=FILE")


def _local(key: str, path_value: str) -> Path:
    if not path_value.startswith("pkg://"):
        return Path(path_value).expanduser()
    package, _, file = path_value.removeprefix("pkg://").partition("/")
    try:
        return Path(str(resources.files(package) / file))
    except (ModuleNotFoundError, ValueError):
        raise UserError(f"{key}={path_value}: no package {package!r} is installed") from None


def _in_folder(key: str, path_value: str, folder: Path, choose: Callable[[Sequence[str]], list[str]]) -> Source:
    if is_from_disk(folder):
        return Source(folder, path_value)
    try:
        entries = [entry.relative_to(folder) for entry in (*folder.iterdir(), *folder.glob("*/*"))]
    except OSError as error:
        raise UserError(f"{key}={path_value}: cannot be read ({error.strerror})") from None
    saved = [str(entry) for entry in entries if len(entry.parts) == 1 and is_from_disk(folder / entry)]
    names = sorted(saved or (entry.as_posix() for entry in entries if (folder / entry).is_file()))
    chosen, test_files = _chosen(
        key, path_value, names if saved else _data_names(names), choose, lambda name: str(folder / name)
    )
    return Source(folder / chosen, chosen, path_value, None, test_files)


def _on_hub(key: str, path_value: str, name: HubFile, choose: Callable[[Sequence[str]], list[str]]) -> Source:
    test_files: tuple[str, ...] = ()

    def pick(files: Sequence[str], revision: str, complete: bool) -> str:
        nonlocal test_files
        chosen, test_files = _chosen(key, path_value, _data_names(files), choose, name.at(revision).address)
        if not complete and choose is _training_file and _held_out(chosen):
            raise UserError(
                f"{key}={path_value}: the hub cannot be reached, and its cache holds only {chosen}; give {key}=FILE"
            )
        return chosen

    file = hub_file(key, path_value, name, pick)
    return Source(file.path, file.name, name.repository, file.revision, test_files)


def _data_names(names: Iterable[str]) -> list[str]:
    """Returns the names of data files: in the top folder or, if it has none, in its subfolders. Text files count if there is no other."""
    names = [name for name in names if ".." not in PurePosixPath(name).parts]
    for suffixes in (DATA_SUFFIXES, TEXT_SUFFIXES):
        for depth in (1, 2):
            files = [name for name in names if len(PurePosixPath(name).parts) == depth and is_data_name(name, suffixes)]
            if suffixes is TEXT_SUFFIXES:
                files = [name for name in files if _has_word(name, _TRAIN) or _held_out(name)]
            if files:
                return files
    return []


def _chosen(
    key: str, path_value: str, names: list[str], choose: Callable[[Sequence[str]], list[str]], address: Callable[[str], str]
) -> tuple[str, tuple[str, ...]]:
    """Returns the file to read, and the values of `data.test_path` for the others that seem to be test dialogues.

    Raises UserError if there is no data file or `choose` returns several.
    """
    if not names:
        suffixes = ", ".join(sorted(suffix[1:] for suffix in DATA_SUFFIXES))
        raise UserError(f"{key}={path_value}: holds no data file (none of {suffixes}); give {key}=FILE")
    chosen = choose(names)
    if len(chosen) > 1:
        listing = ", ".join(chosen[:6]) + (", ..." if len(chosen) > 6 else "")
        raise UserError(f"{key}={path_value}: holds several data files ({listing}); name one: {key}={address(chosen[0])}")
    held_out = _test_file([name for name in names if name != chosen[0]] or chosen)
    return chosen[0], tuple(address(name) for name in held_out if name != chosen[0] and _held_out(name))


def _training_file(names: Sequence[str]) -> list[str]:
    """Returns the files named as training data or, if there are none, those not named as test or validation data."""
    candidates = [name for name in names if not _held_out(name)]
    return [name for name in candidates if _has_word(name, _TRAIN)] or candidates or list(names)


def _test_file(names: Sequence[str]) -> list[str]:
    """Returns the files named as test data or, if there are none, as validation data, or else all."""
    by_word = ([name for name in names if _has_word(name, words)] for words in (_TEST, _VALIDATION))
    return next(filter(None, by_word), list(names))


def _held_out(name: str) -> bool:
    return _has_word(name, _VALIDATION) or _has_word(name, _TEST)


@cache
def _has_word(name: str, words: tuple[str, ...]) -> bool:
    """Returns whether a file's path contains one of the words, separated from others by anything but letters."""
    return not set(re.split(r"[^a-z]+", str(PurePosixPath(name).with_suffix("")).lower())).isdisjoint(words)
