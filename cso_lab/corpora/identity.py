"""What the data of a configuration is known by: its content, wherever it lies and whatever it is called."""

from collections.abc import Mapping

from cso_lab.core.errors import UserError
from cso_lab.core.hashing import file_digest
from cso_lab.corpora.source import data_source, given_path, on_hub, test_source


def data_identity(cfg_data: Mapping) -> str | list[str]:
    """The content of `data.path` and, where it is given, of `data.test_path`. Raises UserError if one of them is not there."""
    held_out, content = test_source(cfg_data), file_digest(data_source(cfg_data).path)
    return content if held_out is None else [content, file_digest(held_out.path)]


def identity_without_hub(cfg_data: Mapping) -> list[str | None]:
    """The same for the name of a cell, which is told before anything is fetched: a data set on the hub goes by its name here, and what is
    not there by none."""
    return [_of(cfg_data, "path", data_source), _of(cfg_data, "test_path", test_source)]


def _of(cfg_data: Mapping, key: str, find) -> str | None:
    given = given_path(cfg_data, key)
    if given is None or on_hub(given):
        return given
    try:
        return file_digest(find(cfg_data).path)
    except (UserError, OSError):
        return None
