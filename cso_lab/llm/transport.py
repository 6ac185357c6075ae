"""One call to one model: OpenAI-compatible servers over aiohttp, in-process models directly, other providers through litellm.

litellm's own client for OpenAI-compatible servers takes about 6 ms of CPU time per call, most of it for type checks, price lookups and
logging; this one takes a tenth of that. It still uses litellm's tables of model parameters and prices.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cso_lab.core.errors import MissingKey, UserError
from cso_lab.llm import prices
from cso_lab.llm.config_location import ROLES, ConfigLocation
from cso_lab.llm.errors import (
    RetryableError,
    RoleFailure,
    api_keys,
    error_in,
    error_of,
    error_status,
    error_text,
    fault,
    one_line,
    redact,
    secret_names,
)
from cso_lab.llm.in_process import in_process_providers


@dataclass(frozen=True)
class Reply:
    """A model's reply. Token counts are None if the server reports none; `cost`, in US dollars, is None if the price is unknown.

    `empty_reason` says why `text` is empty, if it is.
    """

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None
    empty_reason: str = "an empty reply"


class Transport:
    """Makes single calls; limits, retries and counting are up to the client. Use it in an `async with`."""

    def __init__(self, api_base: str | None = None, api_key_env: str | None = None, place: ConfigLocation = ROLES):
        """`api_base`: the base URL of an OpenAI-compatible server. Only the key that `api_key_env` names is sent to it.

        Raises UserError if `api_key_env` names a variable that is not set.
        """
        if api_key_env and not os.environ.get(api_key_env):
            raise UserError(f"{place.node}.api_key_env names {api_key_env}, which is not set in the environment")
        self._base, self._place = api_base, place
        self._key = os.environ[api_key_env] if api_key_env else None
        if api_key_env:
            secret_names.add(api_key_env)
        self._keys = api_keys()
        self._providers: dict[str, str] = {}
        self._session = None

    async def __aenter__(self) -> "Transport":
        import aiohttp

        # No limits here: the client limits the number of calls in flight and gives each a timeout.
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout())
        # Looked up once; aiohttp's trust_env would look it up for every request, in a thread.
        url = urlsplit(self._url())
        self._proxy = None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)
        return self

    async def __aexit__(self, *_) -> None:
        await self._session.close()

    def check(self, role: str, model: str) -> str:
        """Returns the provider's name. Raises UserError if no call to `model` could work, MissingKey if it lacks a key."""
        if model in self._providers:
            return self._providers[model]
        provider = prices.provider(self._place.model(role), model)
        if not (self._base or self._key) and (missing := prices.missing_keys(model)):
            raise MissingKey(f"{model} as {role} needs {' or '.join(missing)}, and it is not set in the environment")
        self._providers[model] = provider
        return provider

    def own_server(self, role: str, model: str) -> str | None:
        """Returns the address of the server of the user's own that holds `model`; None for a provider's and in this process."""
        provider = self.check(role, model)
        if provider in in_process_providers():
            return None
        env = os.environ
        return self._base or ((env.get("OPENAI_BASE_URL") or env.get("OPENAI_API_BASE")) if provider == "openai" else None)

    async def complete(self, role: str, model: Mapping, messages: list[dict], seed: int) -> Reply:
        """Returns the reply of `model` (its config, see `question.model_config`) to `messages`, in its `response_format` if it has one.

        Raises RetryableError if there was no reply and a retry may help, RefusedError if the content was refused, RoleFailure if this
        request is invalid (too long, say), and UserError if every request would fail.
        """
        name = model["model"]
        provider = self.check(role, name)
        if provider == "openai" and prices.uses_chat_completions(name):
            return await self._over_http(role, model, messages, seed)
        if provider in in_process_providers():
            return self._in_process(provider, role, name, messages, seed)
        return await self._over_litellm(role, model, messages, seed)

    async def _over_http(self, role: str, model: Mapping, messages: list[dict], seed: int) -> Reply:
        name = model["model"]
        parameters = _parameters(name, model["temperature"], model["max_tokens"])
        body = {"model": name.removeprefix("openai/"), "messages": messages, **parameters}
        if "seed" in parameters:
            body["seed"] = seed
        body |= _response_format(model) | (model.get("extra") or {})
        return self._read_completion(role, name, await self._post(role, name, body))

    async def _post(self, role: str, name: str, body: Mapping) -> bytes:
        """Returns the body of a response with status 200. Raises the errors of `complete` for anything else."""
        import aiohttp

        try:
            async with self._session.post(self._url(), json=body, headers=self._headers(), proxy=self._proxy) as response:
                status, payload, headers = response.status, await response.read(), response.headers
        except aiohttp.ClientConnectorError as error:
            raise RetryableError(f"cannot reach {self._url()}: {one_line(error.os_error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise RetryableError(f"connection failed: {one_line(error)}") from None
        if status != 200:
            raise fault(role, name, status, error_of(payload), headers)
        return payload

    async def _over_litellm(self, role: str, model: Mapping, messages: list[dict], seed: int) -> Reply:
        litellm = prices.load_litellm()
        # A user's own server must not get the key that litellm would find in the environment for the provider.
        target = {"api_base": self._base, "api_key": self._key or "none"} if self._base else {}
        if self._key:
            target["api_key"] = self._key
        fields = _litellm_extra(self.check(role, model["model"]), model.get("extra") or {}) | _response_format(model)
        sampling = _without_none(temperature=model["temperature"], max_tokens=model["max_tokens"], seed=seed)
        try:
            response = await litellm.acompletion(
                model=model["model"], messages=messages, **sampling, num_retries=0, max_retries=0, **target, **fields
            )
        except litellm.exceptions.LiteLLMUnknownProvider as error:
            raise UserError(f"{model['model']} as {role}: {one_line(error)}") from None
        except litellm.exceptions.openai.APIError as error:
            headers = getattr(getattr(error, "response", None), "headers", None) or {}
            raise fault(role, model["model"], getattr(error, "status_code", None) or 500, str(error), headers) from None
        if response is None:
            # litellm retries an unprocessable request once with fewer parameters, and returns None if that fails as well
            raise RoleFailure(f"{role}: request refused as unprocessable (422)")
        if not response.choices:
            raise RetryableError("an answer without a reply in it")
        choice, usage = response.choices[0], getattr(response, "usage", None)
        more = getattr(choice.message, "provider_specific_fields", None) or {}
        return Reply(
            self._clean(choice.message.content),
            usage and usage.prompt_tokens,
            usage and usage.completion_tokens,
            response._hidden_params.get("response_cost"),
            self._empty_reason(more.get("refusal"), choice.finish_reason),
        )

    def _in_process(self, provider: str, role: str, name: str, messages: list[dict], seed: int) -> Reply:
        from litellm.llms.custom_llm import CustomLLMError

        try:
            text, prompt_tokens, reply_tokens = in_process_providers()[provider].answer(name.partition("/")[2], messages, seed)
        except CustomLLMError as error:
            raise fault(role, name, error.status_code, error.message, {}) from None
        return Reply(text, prompt_tokens, reply_tokens, 0.0)

    def _url(self) -> str:
        env = os.environ
        base = self._base or env.get("OPENAI_BASE_URL") or env.get("OPENAI_API_BASE") or "https://api.openai.com/v1"
        return base.rstrip("/") + "/chat/completions"

    def _headers(self) -> dict[str, str]:
        # Self-hosted servers need no key, but some require the header.
        key = self._key or ("none" if self._base else os.environ["OPENAI_API_KEY"])
        return {"Authorization": f"Bearer {key}"}

    def _read_completion(self, role: str, name: str, payload: bytes) -> Reply:
        """Parses OpenAI's chat.completion object. One without content gives a Reply with an empty text, since it may still cost money.

        Raises the errors of `complete` for an error object or anything else that is no completion, although the status was 200.
        """
        try:
            completion = json.loads(payload)
        except (ValueError, RecursionError):
            completion = None
        if (error := error_in(completion)) is not None:
            raise fault(role, name, error_status(error), error_text(error), {})
        try:
            choice, usage = completion["choices"][0], completion.get("usage") or {}
            message = choice["message"]
            text, reason = message.get("content"), self._empty_reason(message.get("refusal"), choice.get("finish_reason"))
            prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens")
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            cost = prices.cost(name, prompt or 0, answer or 0, cached)
            return Reply(self._clean(text), prompt, answer, cost, reason)
        except (TypeError, AttributeError, KeyError, IndexError):
            raise RetryableError(f"not a chat completion: {one_line(payload[:200].decode(errors='replace'))}") from None

    def _empty_reason(self, refusal: str | None, finish_reason: str | None) -> str:
        """Returns why a completion has no content, as far as the response says."""
        if refusal:
            return f"refused: {one_line(refusal)}"
        ending = "" if finish_reason in (None, "stop") else f" (finish_reason: {one_line(finish_reason)})"
        return f"an empty reply{ending}"

    def _clean(self, text: str | None) -> str:
        """Returns the text without lone surrogates, which no file could store, and without API keys that a server may echo."""
        return redact((text or "").encode("utf-8", "replace").decode(), self._keys)


def _without_none(**parameters: float | None) -> dict:
    """Returns the parameters that are not None; for the others the model's own default holds."""
    return {name: value for name, value in parameters.items() if value is not None}


def _response_format(model: Mapping) -> dict:
    return {"response_format": model["response_format"]} if "response_format" in model else {}


def _litellm_extra(provider: str, extra: Mapping) -> dict:
    """Returns the arguments with which litellm puts `extra` into the body of a request, under the names it has."""
    if not extra:
        return {}
    # For Anthropic, litellm sends `extra_body` as a field of that name instead of merging it.
    return {**extra, "allowed_openai_params": list(extra)} if provider == "anthropic" else {"extra_body": dict(extra)}


@cache
def _parameters(model: str, temperature: float | None, max_tokens: int | None) -> dict:
    """Returns the sampling parameters under the names that this model accepts, which litellm knows; newer OpenAI models renamed some."""
    given = _without_none(temperature=temperature, max_tokens=max_tokens, seed=0, drop_params=True)
    litellm, name = prices.load_litellm(), model.removeprefix("openai/")
    parameters = litellm.get_optional_params(model=name, custom_llm_provider="openai", **given)
    return {key: value for key, value in parameters.items() if key not in ("stream", "extra_body")}
