"""What is known of a model before it is called: its provider and its price. litellm is set up here, once."""

import logging
from functools import cache

from cso_lab.core.errors import UserError
from cso_lab.llm.in_process import in_process_providers


@cache
def load_litellm():
    """Returns litellm, set up once: no chatter, and the models that answer in this process known by their providers."""
    import litellm

    litellm.suppress_debug_info = True
    litellm.drop_params = True  # a provider without `seed`, say, simply does not get it
    litellm.telemetry = False
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)
    providers = in_process_providers()
    litellm.custom_provider_map = [
        {"provider": name, "custom_handler": models.litellm_handler()} for name, models in providers.items()
    ]
    litellm.utils.custom_llm_setup()
    # They cost nothing, and that is known; other models without a price are counted as unpriced.
    free = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "mode": "chat"}
    for name, models in providers.items():
        litellm.register_model({f"{name}/{model}": free | {"litellm_provider": name} for model in models.names})
    return litellm


def provider(key: str, model: str) -> str:
    """litellm's name of who serves `model`, which was configured under `key`; a UserError when the name says nothing of it."""
    litellm = load_litellm()
    try:
        return litellm.get_llm_provider(model)[1]
    except litellm.exceptions.BadRequestError:
        raise UserError(f"{key}={model}: names no provider; write it as PROVIDER/NAME, such as openai/NAME") from None


def missing_keys(model: str) -> list[str]:
    """The variables any one of which would let litellm ask `model`, where none is set; [] where one is, or where it takes no key.

    Of what litellm names, addresses and cloud credentials are left out: they can be had in other ways.
    """
    return [name for name in load_litellm().validate_environment(model)["missing_keys"] if name.endswith("_API_KEY")]


@cache
def speaks_chat(model: str) -> bool:
    """Whether OpenAI serves this model over /chat/completions, as far as litellm knows; a few speak another protocol."""
    info = _info(model)
    return info is None or info["mode"] == "chat"


def priced(model: str) -> bool:
    """Whether litellm knows what a token costs."""
    return _info(model) is not None


def cost(model: str, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float | None:
    """US dollars; None when nobody knows the price, which is not the same as nothing. `cached_tokens` are part of `prompt_tokens`."""
    if not priced(model):
        return None
    tokens = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return sum(load_litellm().cost_per_token(model=model, **tokens, cache_read_input_tokens=cached_tokens))


@cache
def _info(model: str) -> dict | None:
    try:
        return load_litellm().get_model_info(model)
    except Exception:  # litellm raises errors of several kinds for a model it has no entry for
        return None
