"""The node `serving`: how a run starts a server for its own model."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from cso_lab.config.validation import AboveZero, Count, Node

FIELDS = ("model", "name", "port", "dtype", "device")
"""What stands in braces in the arguments of a server's command. Other braces, such as those of JSON, are kept as they are."""
_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")


def fill(text: str, values: Mapping[str, object]) -> str:
    """Returns an argument with its fields replaced by their values."""
    return _FIELD.sub(lambda match: str(values[match[1]]), text)


def _fields(text: str) -> str:
    """Raises ValueError if an argument has a field that nothing is known for."""
    for name in _FIELD.findall(text):
        if name not in FIELDS:
            raise ValueError(f"{{{name}}} is no field: valid are {', '.join(f'{{{field}}}' for field in FIELDS)}")
    return text


Argument = Annotated[str, AfterValidator(_fields)]


class Serving(Node):
    """`serving`; see conf/serving/common/keys.yaml."""

    name: Annotated[str, Field(min_length=1)]
    command: Annotated[str, Field(min_length=1)] | None
    arguments: list[Argument]
    extra_arguments: list[Argument]
    request_model: Argument
    health: Annotated[str, Field(pattern="^/")]
    port: Annotated[int, Field(ge=1, le=65535, strict=True)] | None
    timeout: AboveZero
    max_concurrency: Count | None
    requires: list[str]
    install: str | None
