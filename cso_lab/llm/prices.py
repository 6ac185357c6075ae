"""What litellm knows about a model before it is called: provider, required keys, price. Sets litellm up, once."""

import logging
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
    # Registered with a price of zero; models without any price would be counted as unpriced.
    free = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "mode": "chat"}
    for name, models in providers.items():
        litellm.register_model({f"{name}/{model}": free | {"litellm_provider": name} for model in models.names})
    return litellm


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
    """Returns whether litellm knows the price of the model's tokens."""
    return _info(model) is not None


def cost(model: str, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float | None:
    """Returns the cost of a call in US dollars; None if the price is unknown. `prompt_tokens` include `cached_tokens`."""
    if not has_known_price(model):
        return None
    tokens = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return sum(load_litellm().cost_per_token(model=model, **tokens, cache_read_input_tokens=cached_tokens))


@cache
def _info(model: str) -> dict | None:
    try:
        return load_litellm().get_model_info(model)
    except Exception:  # litellm raises errors of several kinds for a model it has no entry for
        return None
