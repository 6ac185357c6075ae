"""JSON and JSON Lines files: atomic writes, and errors that name file and line."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from cso_lab.core.errors import UserError


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file atomically, so that no reader sees a part of it. Raises UserError if it cannot be written."""
    _write_atomically(Path(path), json.dumps(value, ensure_ascii=False, indent=1, sort_keys=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[object]) -> int:
    """Writes dataclass records or dicts atomically, one JSON object a line; returns how many.

    Raises UserError if the file cannot be written.
    """
    lines = [json.dumps(row if isinstance(row, dict) else asdict(row), ensure_ascii=False) for row in rows]
    _write_atomically(Path(path), "".join(line + "\n" for line in lines))
    return len(lines)


def read_jsonl(path: Path) -> list[dict]:
    """Returns the objects of a JSON Lines file. Raises UserError, with file and line, if it cannot be read or a line is no object."""
    path, rows, number = Path(path), [], 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007, the error names the line
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise UserError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
                    rows.append(row)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}:{number}: not valid JSON Lines ({error})") from None
    return rows


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def read_json(path: Path) -> object:
    """Returns the value in a JSON file. Raises UserError, with its path, if it is missing or not valid JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
