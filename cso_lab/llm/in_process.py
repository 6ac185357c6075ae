"""Models that answer in this process: who offers them registers a provider here, and the client asks them by PROVIDER/NAME."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol


class InProcessModels(Protocol):
    """The models of one provider. They cost nothing and ask no network."""

    names: Sequence[str]

    def answer(self, name: str, messages: Sequence[Mapping], seed: int | None) -> tuple[str, int, int]:
        """Returns (reply, tokens of the prompt, tokens of the reply). Raises litellm's CustomLLMError if
        there is no reply to such messages."""

    def litellm_handler(self) -> object:
        """Returns the same models as a litellm.CustomLLM."""


_loaders: dict[str, Callable[[], InProcessModels]] = {}


def register_in_process(provider: str, load: Callable[[], InProcessModels]) -> None:
    """Make the models of `provider` known. `load` is called when the first of them is needed."""
    _loaders[provider] = load


def in_process_providers() -> dict[str, InProcessModels]:
    """Returns the registered models by provider."""
    return {provider: load() for provider, load in _loaders.items()}
