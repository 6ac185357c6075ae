"""What litellm knows about a model before it is called: provider, required keys, price. Sets litellm up, once."""

import logging
from collections.abc import Mapping
from functools import cache

from cso_lab.core.errors import UserError
from cso_lab.llm.in_process import in_process_providers


@cache
def load_litellm():
    """Returns litellm, set up once: without log messages and telemetry, and with the in-process providers registered."""
    import litellm

    litellm.suppress_debug_info = True
    litellm.drop_params = True  # omit what a provider does not support, such as `seed`
    litellm.telemetry = False
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)
    providers = in_process_providers()
    litellm.custom_provider_map = [
        {"provider": name, "custom_handler": models.litellm_handler()} for name, models in providers.items()
    ]
    litellm.utils.custom_llm_setup()
    for name, models in providers.items():
        litellm.register_model({f"{name}/{model}": _free(name) for model in models.names})
    return litellm


def _free(provider: str) -> dict:
    """Returns litellm's entry for a model with a price of zero; models without any price would be counted as unpriced."""
    return {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "mode": "chat", "litellm_provider": provider}


def register_free(model: str) -> None:
    """Makes known that calls to `model` (PROVIDER/NAME), which a server of one's own holds, cost nothing."""
    load_litellm().register_model({model: _free(model.partition("/")[0])})


def provider(key: str, model: str) -> str:
    """Returns litellm's name of the provider of `model`. Raises UserError, naming the config `key`, if the model names none."""
    litellm = load_litellm()
    try:
        return litellm.get_llm_provider(model)[1]
    except litellm.exceptions.BadRequestError:
        raise UserError(f"{key}={model}: names no provider; write it as PROVIDER/NAME, such as openai/NAME") from None


def missing_keys(model: str) -> list[str]:
    """Returns the environment variables of which one must be set before `model` can be called; [] if one is, or if none is needed.

    Base URLs and cloud credentials that litellm names as well are left out, since they can also be configured in other ways.
    """
    return [name for name in load_litellm().validate_environment(model)["missing_keys"] if name.endswith("_API_KEY")]


@cache
def uses_chat_completions(model: str) -> bool:
    """Returns whether OpenAI serves this model at /chat/completions; a few use another protocol. True if litellm does not know it."""
    info = _info(model)
    return info is None or info["mode"] == "chat"


@cache
def structured_form(model: str) -> str:
    """Returns what litellm knows an API model to take as `response_format`: "json_schema" or "json_object"; "none" if it knows of none."""
    litellm = load_litellm()
    if model.partition("/")[0] in in_process_providers():
        return "none"
    if litellm.supports_response_schema(model):
        return "json_schema"
    # Without an entry for the model, litellm only says what its provider takes for some model.
    takes_format = _info(model) is not None and "response_format" in (litellm.get_supported_openai_params(model) or ())
    return "json_object" if takes_format else "none"


def has_known_price(model: str) -> bool:
    """Returns whether litellm knows the price of the model's tokens.

    Of models that it knows by their capabilities alone it says that they cost nothing.
    """
    entry = load_litellm().model_cost.get((_info(model) or {}).get("key")) or {}
    return any(("cost" in name or "pricing" in name) and value is not None for name, value in entry.items())


def cost(model: str, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float | None:
    """Returns the cost of a call in US dollars; None if the price is unknown. `prompt_tokens` include `cached_tokens`."""
    if not has_known_price(model):
        return None
    tokens = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return sum(load_litellm().cost_per_token(model=model, **tokens, cache_read_input_tokens=cached_tokens))


def batch_cost(model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
    """Returns the cost of a call within a batch: by the model's batch prices, else half of what it costs alone. None if unknown."""
    prices = _info(model) or {}
    per_prompt, per_completion = (prices.get(f"{kind}_cost_per_token_batches") for kind in ("input", "output"))
    if per_prompt is not None and per_completion is not None:
        return prompt_tokens * per_prompt + completion_tokens * per_completion
    alone = cost(model, prompt_tokens, completion_tokens)
    return None if alone is None else alone / 2


def describe(tokens: Mapping[str, tuple[int, int]], key: str) -> str:
    """Returns what calls cost, as the end of an estimate, and what they cost in batches where all models have them.

    `tokens`: (of the prompts, of the replies) by model; `key`: the config key that turns batches on.
    """
    costs = {model: cost(model, *numbers) for model, numbers in tokens.items()}
    if unknown := [model for model, dollars in costs.items() if dollars is None]:
        return f"; the price of {', '.join(unknown)} is not known"
    alone = f", ${sum(costs.values()):,.2f}"
    if not all(has_batches(model) for model in tokens):
        return alone
    return f"{alone} (${sum(batch_cost(model, *numbers) for model, numbers in tokens.items()):,.2f} with {key}=true)"


def has_batches(model: str) -> bool:
    """Returns whether `model` can be asked in batches: OpenAI's batch interface of a model that is asked for chat completions."""
    return load_litellm().get_llm_provider(model)[1] == "openai" and uses_chat_completions(model)


@cache
def _info(model: str) -> dict | None:
    try:
        return load_litellm().get_model_info(model)
    except Exception:  # litellm raises errors of several kinds for a model it has no entry for
        return None
