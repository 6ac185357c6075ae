"""The one way to any model: litellm, with a limit on calls under way, timeouts, bounded retries, and counts of use."""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from cso_lab.errors import UserError
from cso_lab.roles.parsing import GarbledReply

Parsed = TypeVar("Parsed")


class RoleFailure(Exception):
    """One question got no usable answer within its attempts. The dialogue it belongs to cannot go on."""


@dataclass
class Usage:
    """What was used so far. `unpriced` counts calls to models whose price nobody knows; they are not free."""

    calls: Counter = field(default_factory=Counter)  # by role
    failed_attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0  # US dollars
    unpriced: int = 0

    def to_json(self) -> dict:
        return vars(self) | {"calls": dict(self.calls)}


@cache
def load_litellm():
    """litellm, set up once: no network on import, no chatter, simulated players known as the provider "simulated"."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    from cso_lab.roles.simulated.provider import SimulatedPlayers

    litellm.suppress_debug_info = True
    litellm.drop_params = True  # a provider without `seed`, say, simply does not get it
    litellm.telemetry = False
    litellm.custom_provider_map = [{"provider": "simulated", "custom_handler": SimulatedPlayers()}]
    litellm.utils.custom_llm_setup()
    # Simulated players cost nothing, and that is known; other models without a price are counted as unpriced.
    free = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "litellm_provider": "simulated", "mode": "chat"}
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)
    litellm.register_model({f"simulated/{player}": free for player in SimulatedPlayers.names})
    return litellm


class Client:
    """Asks models. One instance a search: its limit and its counts are global over all dialogues and roles."""

    def __init__(
        self,
        *,
        max_concurrency: int,
        timeout: float,
        attempts: int,
        api_base: str | None = None,
        api_key_env: str | None = None,
        longest_pause: float = 20,
    ):
        """`timeout` and `longest_pause` (before asking again) in seconds; `attempts` counts transport faults and garbled
        replies together."""
        if api_key_env and not os.environ.get(api_key_env):
            raise UserError(f"roles.api_key_env names {api_key_env}, which is not set in the environment")
        self._litellm = load_litellm()
        self._slots = asyncio.Semaphore(max_concurrency)
        self._timeout, self._attempts, self._longest_pause = timeout, attempts, longest_pause
        self._target = {"api_base": api_base} if api_base else {}
        if api_key_env:
            self._target["api_key"] = os.environ[api_key_env]
        elif api_base and not os.environ.get("OPENAI_API_KEY"):
            self._target["api_key"] = "none"  # servers of one's own ask for no key, their client library does
        self._known_models: set[str] = set()
        self.usage = Usage()

    async def ask(self, role: str, model: Mapping, messages: list[dict], seed: int, parse: Callable[[str], Parsed]) -> Parsed:
        """The parsed reply of `model` (its config: model, temperature, max_tokens), asked until it parses.

        Raises RoleFailure when `attempts` were in vain, UserError when asking again can never help (no key, no such model).
        """
        from tenacity import AsyncRetrying, RetryError, retry_if_exception, stop_after_attempt, wait_random_exponential

        self._check_model(role, model["model"])
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_random_exponential(multiplier=0.5, max=self._longest_pause),
            retry=retry_if_exception(self._is_passing),
            after=lambda _: self._count_failure(),
        )
        try:
            async for attempt in retrying:
                with attempt:
                    # Another seed each time: a model that answered nonsense to one would answer the same nonsense again.
                    number = attempt.retry_state.attempt_number
                    return parse(await self._complete(role, model, messages, seed + number - 1))
        except RetryError as error:
            last = _one_line(error.last_attempt.exception())
            raise RoleFailure(f"{role}: no usable answer in {self._attempts} attempts, last: {last}") from None
        except self._litellm.exceptions.openai.APIError as error:
            if self._is_hopeless(error):
                raise UserError(f"{model['model']} as {role}: {_one_line(error)}") from None
            raise RoleFailure(f"{role}: request refused: {_one_line(error)}") from None

    def _check_model(self, role: str, model: str) -> None:
        """What litellm would only find out by calling, and then call a server error."""
        if model in self._known_models:
            return
        try:
            provider = self._litellm.get_llm_provider(model)[1]
        except self._litellm.exceptions.BadRequestError:
            raise UserError(
                f"roles.{role}.model={model}: names no provider; write it as PROVIDER/NAME, such as openai/NAME"
            ) from None
        if provider == "openai" and "api_key" not in self._target and not os.environ.get("OPENAI_API_KEY"):
            raise UserError(f"{model} as {role}: OPENAI_API_KEY is not set in the environment")
        self._known_models.add(model)

    async def _complete(self, role: str, model: Mapping, messages: list[dict], seed: int) -> str:
        async with self._slots:
            self.usage.calls[role] += 1
            # litellm's own timeout is not enforced for every provider; this one is.
            async with asyncio.timeout(self._timeout):
                response = await self._litellm.acompletion(
                    model=model["model"],
                    messages=messages,
                    temperature=model["temperature"],
                    max_tokens=model["max_tokens"],
                    seed=seed,
                    timeout=self._timeout,
                    num_retries=0,
                    max_retries=0,
                    **self._target,
                )
        if (
            response is None
        ):  # litellm repeats what a server calls unprocessable once, with less, and forgets the second refusal
            raise RoleFailure(f"{role}: request refused as unprocessable (422)")
        self._count(response)
        return (response.choices[0].message.content or "") if response.choices else ""

    def _count(self, response) -> None:
        if usage := getattr(response, "usage", None):
            self.usage.prompt_tokens += usage.prompt_tokens or 0
            self.usage.completion_tokens += usage.completion_tokens or 0
        cost = response._hidden_params.get("response_cost")
        if cost is None:
            self.usage.unpriced += 1
        else:
            self.usage.cost += cost

    def _count_failure(self) -> None:
        self.usage.failed_attempts += 1

    def _is_hopeless(self, error: BaseException) -> bool:
        """Whether every question would meet this error."""
        errors = self._litellm.exceptions
        hopeless = (
            errors.AuthenticationError,
            errors.NotFoundError,
            errors.PermissionDeniedError,
            errors.LiteLLMUnknownProvider,
        )
        # litellm has no name of its own for a 403 of OpenAI-compatible servers
        return isinstance(error, hopeless) or getattr(error, "status_code", None) == 403

    def _is_passing(self, error: BaseException) -> bool:
        """Whether asking again may help."""
        errors = self._litellm.exceptions
        passing = (
            GarbledReply,
            TimeoutError,
            errors.RateLimitError,
            errors.Timeout,
            errors.APIConnectionError,
            errors.InternalServerError,
            errors.ServiceUnavailableError,
            errors.BadGatewayError,
            errors.APIError,
        )
        return isinstance(error, passing) and not self._is_hopeless(error)


def _one_line(error: BaseException) -> str:
    """An error's first words, short enough for one line, without any key: servers repeat the one they were given."""
    text = " ".join(str(error).split()) or type(error).__name__
    for name, value in os.environ.items():
        if name.endswith(("_KEY", "_TOKEN")) and len(value) >= 8:
            text = text.replace(value, f"${name}")
    return text if len(text) <= 200 else text[:197] + "..."
