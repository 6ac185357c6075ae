"""What stands for the content of a model that is given by a name: a hash of a folder's files, or the revision of a hub id."""

from contextlib import suppress
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json
from cso_lab.core.hashing import digest, file_digest

# The files a model is loaded from: weights, configuration, tokenizer, chat template. An optimizer's state beside them is none.
_SUFFIXES = {".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja"}
# What trainers write beside them.
_NOT_LOADED = {"trainer_state.json"}


def model_content(path: str | None, cache: Path) -> str | None:
    """A hash of the model's files in the folder `path`; of a hub id the revision that is loaded here; None where nothing tells.

    All of every file is read, since a model that was trained further keeps the names, the sizes and the headers of its files. A hash is
    kept in the folder `cache` for as long as the file keeps its inode, its size and its times (of writing and of the last change, which
    no copying program sets back), so that the weights are read once and not by every run.
    """
    if path is None:
        return None
    folder = Path(path).expanduser()
    return _folder_digest(folder.resolve(), Path(cache)) if folder.is_dir() else _revision(path)


def _folder_digest(folder: Path, cache: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if _is_loaded(folder, file))
    return digest([[file.relative_to(folder).as_posix(), _kept_digest(file, cache)] for file in files])


def _is_loaded(folder: Path, file: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix in _SUFFIXES and file.name not in _NOT_LOADED and not hidden and file.is_file()


def _kept_digest(file: Path, cache: Path) -> str:
    stat = file.stat()
    unchanged = [str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    note = cache / f"{digest(str(file))}.json"
    with suppress(UserError, KeyError, TypeError):  # no note, or one that cannot be read: it is made anew
        kept = read_json(note)
        if kept["of"] == unchanged:
            return kept["digest"]
    found = file_digest(file)
    write_json(note, {"of": unchanged, "digest": found})
    return found


def _revision(hub_id: str) -> str | None:
    """The commit of a hub id in the local cache, or where there is none yet the one that the hub would give; None where it cannot be had.

    The hub is not asked for news where the cache has a commit: that is what an offline run loads, and a finished result stays finished
    when somebody edits the model's page.
    """
    from huggingface_hub import HfApi, constants

    reference = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "refs" / "main"
    if reference.exists():
        return reference.read_text(encoding="utf-8").strip()
    with suppress(Exception):  # whatever is wrong, loading the model says so in a line of its own
        return HfApi().model_info(hub_id, timeout=10).sha
    return None
