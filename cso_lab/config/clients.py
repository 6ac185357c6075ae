"""What may stand in the configuration of a model that is asked: the roles, and the client of whoever asks one."""

from typing import Annotated, get_args
from urllib.parse import urlsplit

from omegaconf import MISSING, DictConfig, OmegaConf
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cso_lab.config.renamed_keys import new_name
from cso_lab.core.errors import UserError, unknown

Count = Annotated[int, Field(ge=1, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
# Numbers that are neither texts nor truth values nor infinite.
AboveZero = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
ZeroOrMore = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Temperature = ZeroOrMore


def _address(value: str) -> str:
    url = urlsplit(value)
    if value == MISSING:  # asked for where it is needed
        return value
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("should be an address such as http://HOST:PORT/v1")
    return value


class _Mapping(BaseModel):
    """Every key must be there, and no other."""

    model_config = ConfigDict(extra="forbid")


class Budget(_Mapping):
    """Caps on what is used; see conf/roles/limits/default.yaml."""

    calls: Natural | None
    tokens: Natural | None
    dollars: ZeroOrMore | None


class Limits(_Mapping):
    """What a client is held to, wherever one is configured."""

    api_base: Annotated[str, AfterValidator(_address)] | None
    api_key_env: str | None
    max_concurrency: Count
    timeout: AboveZero
    max_attempts: Count
    max_backoff: ZeroOrMore
    requests_per_minute: AboveZero | None
    tokens_per_minute: AboveZero | None
    budget: Budget


LIMITS = tuple(Limits.model_fields)
"""The keys below a client, or among the roles, that go to the client. They change how calls are made and not what is asked."""


class ServedClient(Limits):
    """`generation.client`."""

    model: str | None


class Role(_Mapping):
    """One of the four roles. A parameter that is null is not sent."""

    model: str
    temperature: Temperature | None
    max_tokens: Count | None
    show_strategies: Annotated[bool, Field(strict=True)]
    system: str
    query: str


class Roles(Limits):
    """`roles`."""

    name: str
    notice: str | None
    seeker: Role
    supporter: Role
    strategist: Role
    judge: Role


def check_node(cfg: DictConfig, node: str, schema: type[BaseModel]) -> None:
    """Raises UserError, which names the first key under `node` that is unknown, missing or has a value that cannot work."""
    given = OmegaConf.select(cfg, node)
    value = OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given
    try:
        schema.model_validate(value)
    except ValidationError as error:
        raise _explained(node, schema, error) from None


def problem(error: ValidationError, allowed: object) -> str:
    """What is wrong with the first value that a ValidationError is about; `allowed`: the type it should have."""
    message = error.errors()[0]["msg"].replace("Input should be", "should be").removeprefix("Value error, ")
    return f"{message}, or null" if type(None) in get_args(allowed) else message


def _explained(node: str, schema: type[BaseModel], error: ValidationError) -> UserError:
    first = error.errors()[0]
    *above, name = [part for part in first["loc"] if isinstance(part, str)] or [""]
    where = ".".join((node, *above))
    if first["type"] == "extra_forbidden":
        if renamed := new_name(f"{where}.{name}"):
            return UserError(f"{where}.{name} is called {renamed} now")
        return unknown(f"key under {where}", name, _field_types(schema, above))
    key = f"{where}.{name}".rstrip(".")
    if first["type"] == "missing":
        return UserError(f"{where} lacks the key {name}: give {key}=VALUE")
    return UserError(f"{key}={first['input']}: {problem(error, _field_types(schema, above).get(name))}")


def _field_types(schema: type[BaseModel], path: list[str]) -> dict[str, object]:
    """The keys of the mapping at `path` below `schema`, with their types."""
    for name in path:
        schema = schema.model_fields[name].annotation
    return {name: field.annotation for name, field in schema.model_fields.items()}
