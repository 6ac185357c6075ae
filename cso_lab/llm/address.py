"""Addresses of OpenAI-compatible servers: put right where that is safe, and looked into when nothing is found there."""

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiohttp import ClientSession

CHAT_COMPLETIONS = "/chat/completions"

# Paths below which servers commonly answer: most of them, Open WebUI and OpenRouter, Groq, Gemini.
_USUAL_PATHS = ("/v1", "/api/v1", "/openai/v1", "/v1beta/openai")
_SHOWN_MODELS = 5
_SECONDS = 10


def base_address(address: str) -> str:
    """Returns an address without the path of chat completions and slashes at the end."""
    return address.rstrip("/").removesuffix(CHAT_COMPLETIONS).rstrip("/")


def other_scheme(address: str) -> str:
    """Returns the address with https instead of http, or http instead of https."""
    scheme, separator, rest = address.partition("://")
    return f"{'http' if scheme == 'https' else 'https'}{separator}{rest}"


def near_addresses(base: str) -> list[str]:
    """Returns the base addresses at which the API of the server at `base` may be instead."""
    url = urlsplit(base)
    root = f"{url.scheme}://{url.netloc}"
    usual = [base + _USUAL_PATHS[0], *(root + path for path in _USUAL_PATHS)]
    return [address for address in dict.fromkeys(usual) if address != base]


async def models_at(session: "ClientSession", base: str, headers: dict, proxy: str | None) -> list[str] | None:
    """Returns the models that GET /models lists at a base address; None if there is no such list."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with session.get(
            f"{base}/models", headers=headers, proxy=proxy, timeout=timeout, allow_redirects=False
        ) as response:
            answer = json.loads(await response.read()) if response.status == 200 else None
    except (aiohttp.ClientError, OSError, ValueError, RecursionError):  # a TimeoutError is an OSError
        return None
    models = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(models, list):
        return None
    return [model["id"] for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]


async def speaks_https(session: "ClientSession", base: str) -> bool:
    """Returns whether the server at an http address answers over https. Sends no key."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with session.get(f"{other_scheme(base)}/models", ssl=False, timeout=timeout, allow_redirects=False):
            return True
    except (aiohttp.ClientError, OSError):
        return False


def list_models(models: list[str], wanted: str) -> str:
    """Returns a few of the models as they are written in the configuration, those with a name like `wanted` first."""
    models = list(dict.fromkeys([*get_close_matches(wanted, models, _SHOWN_MODELS), *models]))
    shown = ", ".join(f"openai/{name}" for name in models[:_SHOWN_MODELS])
    rest = len(models) - _SHOWN_MODELS
    return f"{shown} and {rest} more" if rest > 0 else shown
