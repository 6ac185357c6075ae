"""Short hashes of values and of files."""

import hashlib
import json
from pathlib import Path

_LENGTH = 12


def digest(value: object) -> str:
    """A short hash of any JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:_LENGTH]


def file_digest(path: Path) -> str:
    """A short hash of a file's content, which is read piece by piece: it may be larger than the memory."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_LENGTH]
