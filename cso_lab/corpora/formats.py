"""Reads records from a file in any common format.

Formats are JSON, JSON Lines, CSV, TSV and Parquet, also gzipped or alone in a zip archive, and folders written by `Dataset.save_to_disk`.
Nothing that is read is executed: no pickles, no scripts, no paths of archives.
"""

import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

from cso_lab.core.errors import UserError

DATA_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".gz", ".zip"})
TEXT_SUFFIXES = frozenset({".txt"})
FROM_DISK = ("dataset_info.json", "state.json")
"""The files that `Dataset.save_to_disk` writes beside the data."""

# Most bytes of unpacked data. The largest published corpus has less than a tenth of it.
MAX_UNPACKED = 1 << 29
# Layers of compression, such as a gzipped file in a zip archive.
MAX_LAYERS = 2

# {key of a record's dialogue: the reader that reads it}.
_DIALOGUE_KEYS = {"content": "extes", "dialog": "esconv", "messages": "escpro", "conversations": "escpro"}
_PAIR_KEYS = frozenset({"prompt", "chosen", "rejected", "reject"})
_RECORD_KEYS = _PAIR_KEYS | set(_DIALOGUE_KEYS)
_SPLITS = frozenset({"train", "training", "test", "validation", "valid", "dev", "eval"})

_FOREIGN = {
    b"BZh": "compressed with bzip2: unpack it",
    b"\xfd7zXZ\x00": "compressed with xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"Rar!": "a rar archive: unpack it",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"\xff\xff\xff\xff": "a part of a data set in Arrow's form: give the folder it lies in",
    b"SQLite format 3": "an SQLite database: export it as CSV",
    b"%PDF": "a PDF document, not data",
    b"version https://git-lfs": "a Git LFS pointer and not the file itself: fetch it with `git lfs pull`",
    b"<": "a web page or XML, not data: download the raw file",
    **{bytes([0x80, protocol]): "a Python pickle, which is never opened: save it as JSON" for protocol in range(2, 6)},
}


def read_records(path: Path, limit: int = MAX_UNPACKED) -> list[object]:
    """Returns the records of a data file, or of a folder written by `Dataset.save_to_disk`.

    JSON is a list, an object of records by their ids, {"data": [...]}, {"train": [...]} or JSON Lines. A column or string `text` that
    holds a record as JSON is replaced by that record. Raises UserError, with file and position, for anything else, and for data of more
    than `limit` bytes when unpacked.
    """
    path = Path(path)
    if is_from_disk(path):
        return [opened(record) for record in _from_disk(path)]
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    data = _unpacked(data, path, limit)
    if data.startswith(b"PAR1"):
        return [opened(record) for record in _from_parquet(data, path, limit)]
    return [opened(record) for record in _from_text(_text(data, path), path)]


def is_from_disk(path: Path) -> bool:
    """Returns whether a folder was written by `Dataset.save_to_disk`."""
    return all((path / name).is_file() for name in FROM_DISK)


def opened(record: object) -> object:
    """Returns a record with the JSON that its strings contain parsed, as in a table's cells and the column `text`."""
    if isinstance(record, str):
        inner = _structure(record)
        return inner if isinstance(inner, dict) else record
    if not isinstance(record, dict):
        return record
    inner = [_structure(value) for value in values(record, {"text"}) if isinstance(value, str)]
    if not values(record, _RECORD_KEYS) and len(inner) == 1 and isinstance(inner[0], dict):
        return opened(inner[0])
    parsed = {
        key: _structure(value) for key, value in record.items() if isinstance(value, str) and fold_key(key) in _RECORD_KEYS
    }
    return record | {key: value for key, value in parsed.items() if value is not None}


def form_of(keys: Iterable[str]) -> str:
    """Returns a description of records with these keys and of the `data=` that reads them, "" if it is not known."""
    folded = {fold_key(key) for key in keys}
    if "chosen" in folded and folded & {"rejected", "reject"}:
        return "preference pairs, which data=escpro reads"
    if {"prompt", "completion"} <= folded:
        return "prompts with a completion, which hold neither dialogues nor pairs"
    readers = [(key, reader) for key, reader in _DIALOGUE_KEYS.items() if key in folded]
    return f'dialogues under "{readers[0][0]}", which data={readers[0][1]} reads' if len(readers) == 1 else ""


def _structure(text: str) -> dict | list | None:
    """Returns the object or the list of objects that a string represents in JSON, or None."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text)
    except (RecursionError, ValueError):
        return None
    structured = isinstance(value, dict) or (
        isinstance(value, list) and value and all(isinstance(part, dict) for part in value)
    )
    return value if structured else None


def _unpacked(data: bytes, path: Path, limit: int) -> bytes:
    for _ in range(MAX_LAYERS):
        if data.startswith(b"\x1f\x8b"):
            data = _gunzip(data, path, limit)
        elif data.startswith(b"PK\x03\x04"):
            data = _unzip(data, path, limit)
    start = data[:64].lstrip()
    problem = next((problem for magic, problem in _FOREIGN.items() if start.startswith(magic)), None)
    if data[257:262] == b"ustar":
        problem = "a tar archive: unpack it"
    if data.startswith((b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06")):
        problem = "an archive without a data file: unpack it"
    if problem:
        raise UserError(f"{path}: {problem}")
    return data


def _gunzip(data: bytes, path: Path, limit: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: a gzip file that cannot be read ({error})") from None
    if len(content) > limit:
        raise _too_large(path, limit)
    return content


def _unzip(data: bytes, path: Path, limit: int) -> bytes:
    """Returns the content of the only data file in a zip archive. It is not extracted to disk, so that its name can do no harm."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [member for member in archive.infolist() if is_data_name(member.filename)]
            if len(members) != 1:
                names = ", ".join(member.filename for member in members[:5]) or "none"
                raise UserError(f"{path}: a zip archive must hold one data file, and this one holds {names}: unpack it")
            if members[0].file_size > limit:
                raise _too_large(path, limit)
            with archive.open(members[0]) as file:
                content = file.read(limit + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{path}: a zip archive that cannot be read ({error})") from None
    if len(content) > limit:
        raise _too_large(path, limit)
    return content


def _too_large(path: Path, limit: int) -> UserError:
    return UserError(f"{path}: holds more than {limit >> 20} MiB unpacked: unpack it")


def is_data_name(name: str, suffixes: Iterable[str] = DATA_SUFFIXES) -> bool:
    """Returns whether a file's path is that of data, and not of a hidden file or a description of the data."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    described = parts and parts[-1].lower() in (
        *FROM_DISK,
        "dataset_infos.json",
        "dataset_dict.json",
        "package.json",
        "croissant.json",
    )
    return bool(parts) and not hidden and not described and PurePosixPath(name).suffix.lower() in suffixes


def _text(data: bytes, path: Path) -> str:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start}: not {encoding.removesuffix('-sig').upper()} text") from None
    if not text.strip():
        raise UserError(f"{path}: empty; expected a JSON list of records or JSON Lines")
    return text


def _from_text(text: str, path: Path) -> list[object]:
    if text.lstrip()[0] not in "[{" and (rows := _table(text, path)) is not None:
        return rows
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > 1 and _is_json(lines[0][1]):
        return [_parse(line, path, number) for number, line in lines]
    value = _parse(text, path)
    records = _records_in(value)
    if records is None:
        raise UserError(f'{path}: expected a list of records, {{"data": [records]}} or JSON Lines, found {_kind(value)}')
    return records


def _records_in(value: object) -> list[object] | None:
    """Returns the records in a JSON value, or None if it has an unknown form."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return None
    lists = [entry for entry in values(value, {"data"}) if isinstance(entry, list)]
    if lists:
        return lists[0]
    if values(value, _RECORD_KEYS) or isinstance(opened(value), dict) and opened(value) != value:
        return [value]
    if len(value) == 1 and fold_key(next(iter(value))) in _SPLITS:
        return _records_in(next(iter(value.values())))
    entries = list(value.values())
    if entries and all(isinstance(entry, dict) and values(entry, _RECORD_KEYS | {"text"}) for entry in entries):
        return entries
    return None


def _kind(value: object) -> str:
    if isinstance(value, dict):
        keys = "an object with the keys " + (", ".join(list(value)[:5]) or "(none)")
        parts = len(value) > 1 and all(fold_key(key) in _SPLITS for key in value)
        return keys + ("; make each a file of its own" if parts else "")
    return f"only {json.dumps(value)[:40]}"


def _parse(text: str, path: Path, line: int | None = None) -> object:
    """Returns the JSON value of a text; `line` is its line number if it is a single line. Raises UserError if it is not valid."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{line or error.lineno}:{error.colno}: not valid JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        location = f"{path}:{line}" if line else f"{path}"
        problem = "nested too deeply" if isinstance(error, RecursionError) else "a number with too many digits"
        raise UserError(f"{location}: not readable as JSON ({problem})") from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (RecursionError, ValueError):
        return False
    return True


def _table(text: str, path: Path) -> list[dict] | None:
    """Returns the rows of a CSV or TSV file with columns of records or of their parts, None if the first line is no such header.

    Raises UserError if the file's name is that of a table, but its columns are others.
    """
    header = text.lstrip().split("\n", 1)[0]
    for delimiter in "\t,;":
        columns = _cells(header, delimiter)
        if values(dict.fromkeys(columns), _RECORD_KEYS | {"text"}):
            return list(_rows(text, path, delimiter))
    if _suffix(path) in (".csv", ".tsv"):
        columns = _cells(header, "\t" if "\t" in header else ",")
        raise UserError(
            f"{path}: a table with the columns {', '.join(columns[:6])}; a row must be a whole dialogue or pair, as JSON in a column"
            " text, content, dialog or messages, or in prompt, chosen and rejected"
        )
    return None


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() in (".gz", ".zip") else path.name).suffix.lower()


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line.strip("\r\n")], delimiter=delimiter), [])
    except csv.Error:
        return []


def _rows(text: str, path: Path, delimiter: str) -> Iterator[dict]:
    previous_limit = csv.field_size_limit(MAX_UNPACKED)  # a cell may hold a whole dialogue
    try:
        reader = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter, strict=True)
        columns = next(reader)
        for cells in reader:
            if cells and len(cells) != len(columns):
                raise UserError(f"{path}:{reader.line_num}: {len(cells)} cells in a table of {len(columns)} columns")
            if cells:
                yield dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV ({error})") from None
    finally:
        csv.field_size_limit(previous_limit)


def _from_parquet(data: bytes, path: Path, limit: int) -> list[dict]:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data))
        groups = (file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
        if sum(groups) > limit:
            raise UserError(f"{path}: holds more than {limit >> 20} MiB: take a part of it")
        return file.read().to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: a Parquet file that cannot be read ({_first_line(error)})") from None


def _from_disk(path: Path) -> list[dict]:
    """Returns the rows in Arrow's form, in which no column is decoded (an image column would open files by their paths)."""
    from datasets import load_from_disk

    try:
        return load_from_disk(str(path), keep_in_memory=True).with_format("arrow")[:].to_pylist()
    except Exception as error:  # the libraries below raise many types of errors
        raise UserError(f"{path}: a folder of `save_to_disk` that cannot be read ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@lru_cache(maxsize=4096)  # a file has few different keys and very many of each
def fold_key(key: str) -> str:
    """Returns a key without case, blanks and punctuation: "AI strategy", "AI Strategy " and "ai_strategy" become equal."""
    return re.sub(r"[\W_]+", "", key).casefold()


def values(record: Mapping[str, object], keys: Iterable[str]) -> list[object]:
    """Returns the values under any spelling of `keys` (which are folded already), in the record's order."""
    return [value for key, value in record.items() if fold_key(key) in keys]
