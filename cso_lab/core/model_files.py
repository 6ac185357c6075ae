"""Identifies the content of a model: by a hash of its folder's files, or by the revision of its hub id."""

from contextlib import suppress
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json
from cso_lab.core.hashing import digest, file_digest

# Suffixes of the files a model is loaded from: weights, configuration, tokenizer, chat template; not those of an optimizer's state.
_SUFFIXES = {".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja"}
# Files with such a suffix that trainers write and no model is loaded from.
_NOT_LOADED = {"trainer_state.json"}


def model_content(path: str | None, cache: Path) -> str | None:
    """Returns a hash of the model's files if `path` is a folder, or the revision that a hub id is loaded at; None if it is unknown.

    Files are read to their end, since a model that was trained further keeps the names, sizes and headers of its files. A file's hash is
    cached in the folder `cache` as long as the file keeps its inode, size, modification time and change time (which no copying program
    sets back), so that not every run reads the weights.
    """
    if path is None:
        return None
    folder = Path(path).expanduser()
    return _folder_digest(folder.resolve(), Path(cache)) if folder.is_dir() else _revision(path)


def _folder_digest(folder: Path, cache: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if _is_loaded(folder, file))
    return digest([[file.relative_to(folder).as_posix(), _cached_digest(file, cache)] for file in files])


def _is_loaded(folder: Path, file: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix in _SUFFIXES and file.name not in _NOT_LOADED and not hidden and file.is_file()


def _cached_digest(file: Path, cache: Path) -> str:
    stat = file.stat()
    identity = [str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    cache_file = cache / f"{digest(str(file))}.json"
    with suppress(UserError, KeyError, TypeError):  # a missing or unreadable cache file is written again
        cached = read_json(cache_file)
        if cached["of"] == identity:
            return cached["digest"]
    content = file_digest(file)
    write_json(cache_file, {"of": identity, "digest": content})
    return content


def _revision(hub_id: str) -> str | None:
    """Returns the commit of a hub id in the local cache, else the hub's latest one, else None.

    The local cache comes first because an offline run loads it, and because a finished result stays valid when the model's page is edited.
    """
    from huggingface_hub import HfApi, constants

    reference = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "refs" / "main"
    if reference.exists():
        return reference.read_text(encoding="utf-8").strip()
    with suppress(Exception):  # loading the model will report any error
        return HfApi().model_info(hub_id, timeout=10).sha
    return None
