"""Addresses of OpenAI-compatible servers: put right where that is safe, and looked into when nothing is found there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cso_lab.llm.errors import ConnectionFailed, NoJSON, NothingThere, ServiceError, UnknownModel, WrongAddress

if TYPE_CHECKING:
    from aiohttp import ClientSession

CHAT_COMPLETIONS = "/chat/completions"

# Paths below which servers commonly answer: most of them, Open WebUI and OpenRouter, Groq, Gemini.
_USUAL_PATHS = ("/v1", "/api/v1", "/openai/v1", "/v1beta/openai")
_SHOWN_MODELS = 5
_SECONDS = 5


@dataclass(frozen=True)
class Server:
    """A server at a base address, and how it is asked."""

    session: "ClientSession"
    base: str
    headers: Mapping[str, str]
    proxy: str | None


def base_address(address: str) -> str:
    """Returns an address without the path of chat completions and slashes at the end."""
    return address.rstrip("/").removesuffix(CHAT_COMPLETIONS).rstrip("/")


async def diagnose(error: Exception, model: str, server: Server, key: str) -> ServiceError | None:
    """Returns the error that says what to change where a request for `model` met `error`: the model's name, or the address in `key`.

    Asks the server for its list of models, which costs nothing; returns None if it does not tell, since not all servers have one.
    """
    base = server.base
    if isinstance(error, ConnectionFailed):
        if await _speaks_https(server):
            return WrongAddress(f"{base} is spoken to over http and answers over https: give {key}={_over_https(base)}")
        return None
    models = await _models_at(server, base)
    if models is not None and model not in models and not isinstance(error, NoJSON):
        return UnknownModel(f"{error}: {base} has no model {model}, it has {_list(models, model)}")
    if models is not None or isinstance(error, UnknownModel):
        return None
    for other in _near_addresses(base):
        if await _models_at(server, other) is not None:
            return WrongAddress(f"{error}: {base} is not the API's address, {other} is: give {key}={other}")
    if isinstance(error, NothingThere):
        url, form = base + CHAT_COMPLETIONS, "an address such as http://HOST:PORT/v1"
        return WrongAddress(f"{error}: nothing is served at {url}: {key} should be {form}")
    return None


def _over_https(address: str) -> str:
    return "https" + address.removeprefix("http")


def _near_addresses(base: str) -> list[str]:
    """Returns the base addresses at which the API of the server at `base` may be instead."""
    url = urlsplit(base)
    root = f"{url.scheme}://{url.netloc}"
    usual = [base + _USUAL_PATHS[0], *(root + path for path in _USUAL_PATHS)]
    return [address for address in dict.fromkeys(usual) if address != base]


async def _models_at(server: Server, base: str) -> list[str] | None:
    """Returns the models that GET /models lists at a base address; None if there is no such list."""
    import aiohttp

    options = {"headers": server.headers, "proxy": server.proxy, "timeout": aiohttp.ClientTimeout(total=_SECONDS)}
    try:
        async with server.session.get(f"{base}/models", **options, allow_redirects=False) as response:
            answer = json.loads(await response.read()) if response.status == 200 else None
    except (aiohttp.ClientError, OSError, ValueError, RecursionError):  # a TimeoutError is an OSError
        return None
    models = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(models, list):
        return None
    return [model["id"] for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]


async def _speaks_https(server: Server) -> bool:
    """Returns whether a server at an http address answers over https. Sends no key."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with server.session.get(_over_https(server.base), ssl=False, timeout=timeout, allow_redirects=False):
            return True
    except (aiohttp.ClientError, OSError):
        return False


def _list(models: list[str], wanted: str) -> str:
    """Returns a few of the models as they are written in the configuration, those with a name like `wanted` first."""
    models = list(dict.fromkeys([*get_close_matches(wanted, models, _SHOWN_MODELS), *models]))
    shown = ", ".join(f"openai/{name}" for name in models[:_SHOWN_MODELS]) or "none"
    rest = len(models) - _SHOWN_MODELS
    return f"{shown} and {rest} more" if rest > 0 else shown
