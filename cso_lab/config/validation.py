"""Checks values of the composed configuration against pydantic models; the error is one line about the first invalid value."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cso_lab.config.renamed_keys import new_name
from cso_lab.core.errors import UserError, unknown

Count = Annotated[int, Field(ge=1, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
# Numbers that are neither texts nor truth values nor infinite.
AboveZero = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
ZeroOrMore = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Temperature = ZeroOrMore

WITHHELD = "value_withheld"
"""The type of errors whose message shows no value, since it may be a secret."""


class Node(BaseModel):
    """A node of the configuration whose keys are all known: every one must be there, and no other."""

    model_config = ConfigDict(extra="forbid")


class OpenNode(BaseModel):
    """A node of the configuration to which a user's own YAML may add keys, which are not checked."""

    model_config = ConfigDict(extra="allow")


def check_node(cfg: DictConfig, node: str, schema: type) -> None:
    """Checks the value at the dotted key `node` ("": the whole of `cfg`) against a pydantic model, or another type pydantic can validate.

    Raises UserError, which names the first key that is unknown, missing or has a value that cannot work.
    """
    selected = OmegaConf.select(cfg, node) if node else cfg
    value = OmegaConf.to_container(selected, resolve=True) if OmegaConf.is_config(selected) else selected
    try:
        TypeAdapter(schema).validate_python(value)
    except ValidationError as error:
        raise _user_error(node, schema, value, error.errors()[0]) from None


def _user_error(node: str, schema: type, value: object, problem: Mapping[str, Any]) -> UserError:
    """Returns the error for the first problem that pydantic found with `value`, the value at `node`."""
    # Positions within lists are left out: the list is shown as it was given.
    path = [part for part in problem["loc"] if isinstance(part, str)]
    key = ".".join(filter(None, (node, *path)))
    parent, _, name = key.rpartition(".")
    if problem["type"] == "extra_forbidden":
        if renamed := new_name(key):
            return UserError(f"{key} is called {renamed} now")
        return unknown(f"key under {parent}", name, _model_at(schema, path[:-1]).model_fields)
    if problem["type"] == "missing":
        return UserError(f"{parent or 'the configuration'} lacks the key {name}: give {key}=VALUE")
    if problem["type"] == WITHHELD:
        return UserError(f"{key}: {problem['msg']}")
    for part in path:
        value = value[part]
    return UserError(f"{key}={value}: {_reason(problem['msg'], _type_at(schema, path))}")


def _reason(message: str, allowed: object) -> str:
    """Returns pydantic's message as this project words it; `allowed` is the type that the value should have."""
    message = message.replace("Input should be", "should be").removeprefix("Value error, ")
    return f"{message}, or null" if type(None) in get_args(allowed) else message


def _type_at(schema: type, path: list[str]) -> object:
    """Returns the type of the key at `path` below `schema`; None if `schema` does not say it."""
    if not path:
        return schema
    parent = _model_at(schema, path[:-1])
    return parent.model_fields[path[-1]].annotation if parent and path[-1] in parent.model_fields else None


def _model_at(schema: type, path: list[str]) -> type[BaseModel] | None:
    """Returns the model of the node at `path` below `schema`, also where the node may be null; None if it has no model."""
    candidates = get_args(schema) if get_args(schema) else (schema,)
    model = next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    if not path or model is None or path[0] not in model.model_fields:
        return model if not path else None
    return _model_at(model.model_fields[path[0]].annotation, path[1:])
