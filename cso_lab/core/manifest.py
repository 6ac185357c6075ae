"""Manifest of a finished folder: its files with their sizes and SHA-256 digests, by which later damage is detected."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Writes `folder`/manifest.json: {relative path: {bytes, sha256}} for all files below the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    with ThreadPoolExecutor() as pool:
        entries = pool.map(lambda file: {"bytes": file.stat().st_size, "sha256": _digest(file)}, files)
        write_json(
            folder / MANIFEST, {str(file.relative_to(folder)): entry for file, entry in zip(files, entries, strict=True)}
        )


def damage(folder: Path) -> str | None:
    """Returns what is wrong with a folder's files according to its manifest, in words, or None if they are unchanged.

    Files that are not in the manifest are ignored.
    """
    try:
        entries = read_json(folder / MANIFEST)
        listed = [(name, folder / name, entry["bytes"], entry["sha256"]) for name, entry in entries.items()]
    except (UserError, AttributeError, KeyError, TypeError):
        return f"{MANIFEST} cannot be read"
    for name, file, size, _ in listed:
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} of {size:,} bytes"
    with ThreadPoolExecutor() as pool:
        digests = pool.map(_digest, [file for _, file, _, _ in listed])
        changed = (name for (name, _, _, digest), now in zip(listed, digests, strict=True) if now != digest)
        return next((f"{name} has changed" for name in changed), None)


def _digest(file: Path) -> str | None:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:  # such as a bad sector or a missing permission
        return None
