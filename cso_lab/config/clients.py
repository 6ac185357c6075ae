"""The nodes of models that are asked: the limits of their clients, and the four roles."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from omegaconf import MISSING
from pydantic import AfterValidator

from cso_lab.config.extra_fields import Extra
from cso_lab.config.validation import AboveZero, Count, Flag, Natural, Node, Temperature, ZeroOrMore

_FORM = "should be an address such as http://HOST:PORT/v1"
# Paths of OpenAI's protocol other than the one that is used, which is removed where it is pasted.
_OTHER_PATHS = re.compile(r"(?<!/chat)/(completions|responses|models|embeddings)/*$")


def _address(value: str) -> str:
    if value == MISSING:  # asked for where it is needed
        return value
    try:
        url = urlsplit(value)
        valid = url.scheme in ("http", "https") and url.hostname and url.port != 0 and not re.search(r"\s", value)
    except ValueError:  # brackets that do not match, a port that is no number
        valid = False
    if not valid:
        raise ValueError(_FORM)
    if surplus := _OTHER_PATHS.search(value):
        raise ValueError(f"{_FORM}, without {surplus[0]}")
    return value


class Budget(Node):
    """Caps on what is used; see conf/roles/limits/default.yaml."""

    calls: Natural | None
    tokens: Natural | None
    dollars: ZeroOrMore | None


class Limits(Node):
    """The limits of a client, wherever one is configured."""

    api_base: Annotated[str, AfterValidator(_address)] | None
    api_key_env: str | None
    max_concurrency: Count
    timeout: AboveZero
    max_attempts: Count
    max_backoff: ZeroOrMore
    requests_per_minute: AboveZero | None
    tokens_per_minute: AboveZero | None
    budget: Budget
    batch: Flag
    batch_poll: AboveZero
    batch_tokens: Count | None


LIMITS = tuple(Limits.model_fields)
"""The keys below a client, or among the roles, that go to the client. They change how calls are made and not what is asked."""


class ServedClient(Limits):
    """`generation.client`."""

    model: str | None
    extra: Extra


Structured = Literal["auto", "json_schema", "json_object", "none"]


class Role(Node):
    """One of the four roles. A parameter that is null is not sent."""

    model: str
    temperature: Temperature | None
    max_tokens: Count | None
    extra: Extra
    show_strategies: Flag
    system: str
    query: str


class ScoringRole(Role):
    """A role that replies with scores."""

    structured: Structured


class Judge(ScoringRole):
    """The judge of a search."""

    noise: ZeroOrMore = 0.0


class Roles(Limits):
    """`roles`."""

    name: str
    notice: str | None
    on_policy: Flag
    cut_replies: Literal["trim", "refuse"]
    seeker: Role
    supporter: Role
    strategist: ScoringRole
    judge: Judge
