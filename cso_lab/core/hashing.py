"""Short hashes (12 hex digits of SHA-256) of values and of files."""

import hashlib
import json
from pathlib import Path

_LENGTH = 12


def digest(value: object) -> str:
    """Returns a short hash of a value; what JSON cannot represent is hashed by its `str`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:_LENGTH]


def file_digest(path: Path) -> str:
    """Returns a short hash of a file's content, or of the names and contents of all files in a folder.

    A file is read in pieces and may be larger than the memory.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_LENGTH]
