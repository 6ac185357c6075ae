"""Short hashes of values and of files."""

import hashlib
import json
from pathlib import Path

_LENGTH = 12


def digest(value: object) -> str:
    """A short hash of any JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:_LENGTH]


def file_digest(path: Path) -> str:
    """A short hash of a file's content, which is read piece by piece: it may be larger than the memory. Of a folder, a hash of the names
    and contents of all files in it."""
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_LENGTH]
