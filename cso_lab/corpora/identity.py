"""Identifies the data of a configuration by its content, independently of paths and names."""

from collections.abc import Callable, Mapping

from cso_lab.core.errors import UserError
from cso_lab.core.hashing import file_digest
from cso_lab.corpora.source import Source, data_source, given_path, on_hub, test_source


def data_identity(cfg_data: Mapping) -> str | list[str]:
    """Returns a hash of the file of `data.path` and, if given, of `data.test_path`. Raises UserError if one of them is missing."""
    held_out, content = test_source(cfg_data), file_digest(data_source(cfg_data).path)
    return content if held_out is None else [content, file_digest(held_out.path)]


def identity_without_hub(cfg_data: Mapping) -> list[str | None]:
    """Returns the hashes of `data.path` and `data.test_path` for a cell's name, which must not need the network.

    A data set on the hub is represented by its name, a missing file by None.
    """
    return [_digest_or_name(cfg_data, "path", data_source), _digest_or_name(cfg_data, "test_path", test_source)]


def _digest_or_name(cfg_data: Mapping, key: str, find_source: Callable[[Mapping], Source | None]) -> str | None:
    path = given_path(cfg_data, key)
    if path is None or on_hub(path):
        return path
    try:
        return file_digest(find_source(cfg_data).path)
    except (UserError, OSError):
        return None
