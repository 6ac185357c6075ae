"""Models that answer in this process. A package registers them as a provider; the client addresses them as PROVIDER/NAME."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol


class InProcessModels(Protocol):
    """The models of one provider, by name. Calls to them are free and need no network."""

    names: Sequence[str]

    def answer(self, name: str, messages: Sequence[Mapping], seed: int | None) -> tuple[str, int, int]:
        """Returns (reply, number of prompt tokens, number of reply tokens).

        Raises litellm's CustomLLMError if the model cannot reply to such messages."""

    def litellm_handler(self) -> object:
        """Returns the same models as a litellm.CustomLLM."""


_loaders: dict[str, Callable[[], InProcessModels]] = {}


def register_in_process(provider: str, load: Callable[[], InProcessModels]) -> None:
    """Registers the models of `provider`. `load` is called when the registered models are first needed."""
    _loaders[provider] = load


def in_process_providers() -> dict[str, InProcessModels]:
    """Returns the registered models by provider."""
    return {provider: load() for provider, load in _loaders.items()}
