"""One call to one model: OpenAI-compatible servers over aiohttp, in-process models directly, other providers through litellm.

litellm's own client for OpenAI-compatible servers takes about 6 ms of CPU time per call, most of it for type checks, price lookups and
logging; this one takes a tenth of that. It still uses litellm's tables of model parameters and prices.
"""

import asyncio
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from inspect import isawaitable
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cso_lab.core.errors import MissingKey, UserError
from cso_lab.llm import address, prices
from cso_lab.llm.config_location import ROLES, ConfigLocation
from cso_lab.llm.errors import (
    ConnectionFailed,
    EmptyAnswer,
    InvalidRequest,
    NoJSON,
    NothingThere,
    RetryableError,
    UnknownModel,
    WrongAddress,
    api_keys,
    error_in,
    error_of,
    error_status,
    error_text,
    fault,
    is_html,
    one_line,
    page_text,
    redact,
    secret_names,
)
from cso_lab.llm.in_process import in_process_providers
from cso_lab.llm.reasoning import strip_reasoning
from cso_lab.llm.refused_parameters import RefusedParameters

_LITELLM_PARAMETERS = dict.fromkeys(("temperature", "max_tokens", "seed"))
_FILTERED = re.compile(r"content[ _-]?filter|safety|prohibited|blocklist|refusal|sensitive", re.IGNORECASE)
# What servers give as finish_reason where a reply ended at a limit of tokens.
_CUT = ("length", "max_tokens", "model_length")


@dataclass(frozen=True)
class Reply:
    """A model's reply. Token counts are None if the server reports none; `cost`, in US dollars, is None if the price is unknown.

    `text` may hold reasoning. `empty_reason` says why there is no answer in it, if there is none. `cut`: it ended at a limit of tokens.
    `completion_tokens` include the `reasoning_tokens`.
    """

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None
    empty_reason: str = "an empty reply"
    cut: bool = False
    reasoning_tokens: int = 0


class Transport:
    """Makes single calls; limits, retries and counting are up to the client. Use it in an `async with`."""

    def __init__(self, api_base: str | None = None, api_key_env: str | None = None, place: ConfigLocation = ROLES):
        """`api_base`: the base URL of an OpenAI-compatible server. Only the key that `api_key_env` names is sent to it.

        Raises UserError if `api_key_env` names a variable that is not set.
        """
        if api_key_env and not os.environ.get(api_key_env):
            raise UserError(f"{place.node}.api_key_env names {api_key_env}, which is not set in the environment")
        self._base, self._place = api_base and address.base_address(api_base), place
        self._key = os.environ[api_key_env] if api_key_env else None
        if api_key_env:
            secret_names.add(api_key_env)
        self._keys = api_keys()
        self._providers: dict[str, str] = {}
        self._session = None
        self._refused_parameters = RefusedParameters(place)
        self.forms: dict[tuple[str, str], str] = {}  # in which JSON is asked for at present; see `FormNegotiation`
        self._has_answered = False
        self._diagnoses: dict[tuple[type, str], asyncio.Task] = {}

    async def __aenter__(self) -> "Transport":
        import aiohttp

        # No limits here: the client limits the number of calls in flight and gives each a timeout.
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout())
        # Looked up once; aiohttp's trust_env would look it up for every request, in a thread.
        url = urlsplit(self._url())
        direct = url.hostname in ("127.0.0.1", "localhost", "::1") or proxy_bypass(url.hostname or "")
        self._proxy = None if direct else getproxies().get(url.scheme)
        self._diagnoses = {}  # they belong to an event loop, as the session does
        return self

    async def __aexit__(self, *_) -> None:
        for diagnosis in self._diagnoses.values():
            diagnosis.cancel()
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

    def batch_server(self, role: str, model: str) -> tuple[str, dict[str, str]]:
        """Returns the base URL and the headers for batches of `model`. Raises UserError if it cannot be asked in batches."""
        if self.check(role, model) != "openai" or not prices.has_batches(model):
            raise UserError(
                f"{self._place.node}.batch=true: {model} ({self._place.model(role)}) has no batches here, only models named"
                f" openai/NAME that are asked for chat completions have: give {self._place.node}.batch=false"
            )
        return self._base_url(), self._headers()

    def own_server(self, role: str, model: str) -> str | None:
        """Returns the address of the server of the user's own that holds `model`; None for a provider's and in this process."""
        provider = self.check(role, model)
        if provider in in_process_providers():
            return None
        env = os.environ
        return self._base or ((env.get("OPENAI_BASE_URL") or env.get("OPENAI_API_BASE")) if provider == "openai" else None)

    async def complete(self, role: str, model: Mapping, messages: list[dict], seed: int) -> Reply:
        """Returns the reply of `model` (its config, see `question.model_config`) to `messages`, in its `response_format` if it has one.

        Raises RetryableError if there was no reply and a retry may help, RefusedError if the content was refused, InvalidRequest if the
        server does not take this request (PromptTooLong, say), and UserError if every request would fail.
        """
        name = model["model"]
        provider = self.check(role, name)
        if provider in in_process_providers():
            return await self._in_process(provider, role, name, messages, seed)
        over_http = provider == "openai" and prices.uses_chat_completions(name)
        send = self._over_http if over_http else self._over_litellm
        given = _parameters(name, model["temperature"], model["max_tokens"]) if over_http else _LITELLM_PARAMETERS
        while True:
            sent = self._refused_parameters.applied(name, given)
            try:
                return await send(role, model, messages, seed)
            except InvalidRequest as error:
                self._refused_parameters.add(role, model, error, sent)

    async def _over_http(self, role: str, model: Mapping, messages: list[dict], seed: int) -> Reply:
        name = model["model"]
        parameters = _parameters(name, model["temperature"], model["max_tokens"])
        parameters = self._refused_parameters.applied(name, parameters)
        body = {"model": name.removeprefix("openai/"), "messages": messages, **parameters}
        if "seed" in parameters:
            body["seed"] = seed
        body |= _response_format(model) | _extra(model)
        try:
            reply = self._read_completion(role, name, await self._post(role, name, body))
        except (UnknownModel, NothingThere, NoJSON, ConnectionFailed) as error:
            raise await self._diagnosed(error, body["model"]) from None
        self._has_answered = True
        return reply

    async def _diagnosed(self, error: Exception, model: str) -> Exception:
        """Returns the error to raise for a request that met `error`, with what the server's list of models says about it."""
        if isinstance(error, RetryableError) and (self._has_answered or not self._may_be_wrong(error)):
            return error
        which = type(error), model
        if which not in self._diagnoses:  # once, for all requests that are under way
            key = f"{self._place.node}.api_base" if self._base else "OPENAI_BASE_URL"
            server = address.Server(self._session, self._base_url(), self._headers(), self._proxy)
            self._diagnoses[which] = asyncio.create_task(address.diagnose(error, model, server, key))
        return await asyncio.shield(self._diagnoses[which]) or error

    def _may_be_wrong(self, error: RetryableError) -> bool:
        """Returns whether the address may be why there was no answer, and not a fault that passes."""
        base = self._base_url()
        return base.startswith("http:") if isinstance(error, ConnectionFailed) else not base.endswith("/v1")

    async def _post(self, role: str, name: str, body: Mapping) -> bytes:
        """Returns the body of a response with status 200. Raises the errors of `complete` for anything else."""
        import aiohttp

        url = self._url()
        try:
            # A redirect is not followed, since some turn the request into another one.
            async with self._session.post(
                url, json=body, headers=self._headers(), proxy=self._proxy, allow_redirects=False
            ) as response:
                status, payload, headers = response.status, await response.read(), response.headers
        except aiohttp.ClientConnectorCertificateError as error:
            raise WrongAddress(f"{url}: the server's certificate is not valid: {one_line(error.certificate_error)}") from None
        except aiohttp.ClientConnectorSSLError as error:
            advice = f"give {self._place.node}.api_base with http:// if it speaks plain http"
            raise WrongAddress(
                f"{url}: the server cannot be spoken to over https: {one_line(error.os_error)}: {advice}"
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise RetryableError(f"cannot reach {url}: {one_line(error.os_error)}") from None
        except aiohttp.ClientPayloadError as error:
            raise RetryableError(f"connection failed: {one_line(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionFailed(f"connection failed: {one_line(error)}") from None
        if 300 <= status <= 399:
            goal = address.base_address(one_line(headers.get("Location", "")))
            raise WrongAddress(
                f"{url} redirects to another address: give {self._place.node}.api_base={goal or 'the right one'}"
            )
        if status != 200:
            raise fault(role, name, status, error_of(payload), headers)
        return payload

    async def _over_litellm(self, role: str, model: Mapping, messages: list[dict], seed: int) -> Reply:
        litellm = prices.load_litellm()
        # A user's own server must not get the key that litellm would find in the environment for the provider.
        target = {"api_base": self._base, "api_key": self._key or "none"} if self._base else {}
        if self._key:
            target["api_key"] = self._key
        parameters = _without_none(temperature=model["temperature"], max_tokens=model["max_tokens"], seed=seed)
        sampling = self._refused_parameters.applied(model["model"], parameters)
        fields = _litellm_extra(self.check(role, model["model"]), _extra(model)) | _response_format(model)
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
            raise InvalidRequest(f"{role}: request refused as unprocessable (422)")
        if not response.choices:
            raise EmptyAnswer("an answer without a reply in it")
        choice, usage = response.choices[0], getattr(response, "usage", None)
        more = getattr(choice.message, "provider_specific_fields", None) or {}
        completion_tokens, reasoning_tokens = _completion_tokens(usage.model_dump()) if usage else (None, 0)
        text = _text(choice.message.content, choice.finish_reason)
        message = {"content": text, "reasoning": getattr(choice.message, "reasoning_content", None), **more}
        cost = response._hidden_params.get("response_cost")
        return Reply(
            self._clean(text),
            usage and usage.prompt_tokens,
            completion_tokens,
            cost if cost or prices.has_known_price(model["model"]) else None,
            self._empty_reason(role, message, choice.finish_reason, reasoning_tokens),
            _is_cut(choice.finish_reason),
            reasoning_tokens,
        )

    async def _in_process(self, provider: str, role: str, name: str, messages: list[dict], seed: int) -> Reply:
        from litellm.llms.custom_llm import CustomLLMError

        try:
            answer = in_process_providers()[provider].answer(name.partition("/")[2], messages, seed)
            text, prompt_tokens, reply_tokens, *cut = await answer if isawaitable(answer) else answer
        except CustomLLMError as error:
            raise fault(role, name, error.status_code, error.message, {}) from None
        return Reply(text, prompt_tokens, reply_tokens, 0.0, cut=any(cut))

    def _url(self) -> str:
        return self._base_url() + address.CHAT_COMPLETIONS

    def _base_url(self) -> str:
        env = os.environ
        base = self._base or env.get("OPENAI_BASE_URL") or env.get("OPENAI_API_BASE") or "https://api.openai.com/v1"
        return address.base_address(base)

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
        if completion is None and is_html(payload):
            raise NoJSON(f"not a chat completion: {page_text(payload)}")
        if (error := error_in(completion)) is not None:
            raise fault(role, name, error_status(error), error_text(error), {})
        if isinstance(completion, dict) and completion.get("choices") == []:
            raise EmptyAnswer(f"not a chat completion: no choices in {one_line(payload[:200].decode(errors='replace'))}")
        try:
            choice, usage = completion["choices"][0], completion.get("usage") or {}
            message = choice["message"]
            finish_reason = choice.get("finish_reason")
            message = message | {"content": _text(message.get("content"), finish_reason)}
            prompt, (answer, reasoning) = usage.get("prompt_tokens"), _completion_tokens(usage)
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            cost = prices.cost(name, prompt or 0, answer or 0, cached)
            empty_reason = self._empty_reason(role, message, finish_reason, reasoning)
            return Reply(self._clean(message["content"]), prompt, answer, cost, empty_reason, _is_cut(finish_reason), reasoning)
        except (TypeError, AttributeError, KeyError, IndexError):
            raise RetryableError(f"not a chat completion: {one_line(payload[:200].decode(errors='replace'))}") from None

    def _empty_reason(self, role: str, message: Mapping, finish_reason: str | None, reasoning_tokens: int) -> str:
        """Returns why there is no answer in a message, as far as the response says; reasoning is never taken for one."""
        if refusal := message.get("refusal"):
            return f"refused: {one_line(refusal)}"
        reason = "an empty reply" + ("" if finish_reason in (None, "stop") else f" (finish_reason: {one_line(finish_reason)})")
        content, key = message.get("content") or "", self._place.max_tokens(role)
        if (
            reasoning_tokens
            or message.get("reasoning_content")
            or message.get("reasoning")
            or strip_reasoning(content) != content
        ):
            return f"{reason}: the model wrote its reasoning and no answer: raise {key}, or turn its reasoning off"
        return f"{reason}: raise {key}" if _is_cut(finish_reason) else reason

    def _clean(self, text: str | None) -> str:
        """Returns the text without lone surrogates, which no file could store, and without API keys that a server may echo."""
        return redact((text or "").encode("utf-8", "replace").decode(), self._keys)


def _text(content: object, finish_reason: str | None) -> str | None:
    """Returns the text of a message, whose content may be a list of parts; None if a filter has cut it, since what is left is no reply."""
    if finish_reason and _FILTERED.search(finish_reason):
        return None
    if not isinstance(content, list):
        return content
    parts = (part for part in content if isinstance(part, dict) and part.get("type") in ("text", "output_text"))
    return "".join(part.get("text") or "" for part in parts)


def _is_cut(finish_reason: str | None) -> bool:
    return str(finish_reason).lower() in _CUT


def _extra(model: Mapping) -> dict:
    """Returns the fields added to a request: the variables of the server's chat template, and the user's own, which have precedence."""
    extra = dict(model.get("extra") or {})
    if variables := model.get("chat_template_kwargs"):
        extra["chat_template_kwargs"] = {**variables, **(extra.get("chat_template_kwargs") or {})}
    return extra


def _completion_tokens(usage: Mapping) -> tuple[int | None, int]:
    """Returns the numbers of completion tokens, with those of reasoning, and of reasoning tokens.

    OpenAI counts reasoning tokens among the completion tokens. xAI and Gemini count them in the total only, where they are paid for too.
    """
    completion, total = usage.get("completion_tokens"), usage.get("total_tokens")
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    if completion is None or usage.get("prompt_tokens") is None or total is None:
        return completion, reasoning
    uncounted = max(0, total - usage["prompt_tokens"] - completion)
    return completion + uncounted, max(reasoning, uncounted)


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
