"""The model of a run as a conversation partner: its prompt, its decoding, and its probabilities of the strategies."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cso_lab.config.cells import is_api, trains
from cso_lab.config.model_names import model_label
from cso_lab.core.errors import UserError, unknown
from cso_lab.core.records import Turn, prompt_messages
from cso_lab.core.strategies import StrategySet, parse_reply, strategy_set
from cso_lab.generation.run_folder import run_configuration, run_model

if TYPE_CHECKING:
    from cso_lab.generation.decoding_strategies import Plain


@dataclass(frozen=True)
class Reply:
    """The model's reply. `strategy` is None if it does not begin with one of the set; `text` is then the whole reply.

    `probabilities`: {strategy: the probability that the reply begins with it without constraints, scaled to sum to 1};
    `mass`: their sum before scaling; the rest belongs to other openings.
    """

    strategy: str | None
    text: str
    probabilities: dict[str, float]
    mass: float


def mass_note(reply: Reply) -> str:
    """Returns a sentence that explains the probabilities, which can be fractions of a very small mass."""
    mass = f"{reply.mass:.2%}" if reply.mass >= 1e-4 else "less than 0.01%"
    return f"These {len(reply.probabilities)} openings hold {mass} of the probability; shown is how they share it."


class Partner:
    """A model to talk to. It stores no conversation: every call passes the whole history."""

    def __init__(self, cfg: DictConfig, folder: Path, checkpoint: Path | None, label: str | None = None):
        """`label`: the name of the backbone, where `cfg` names its checkpoint as the backbone's path."""
        from cso_lab.generation.local import LocalModel

        self.name = _name(cfg, label or model_label(cfg))
        self.strategies: StrategySet = strategy_set(cfg.data.strategies)
        self._method = _method(cfg, folder)
        self._model = LocalModel(cfg, checkpoint, self.strategies)

    def load(self) -> None:
        """Loads the weights now instead of at the first message."""
        self._model.load()

    def reply(self, history: Sequence[Turn], strategy: str | None = None) -> Reply:
        """Returns the reply to a history that ends with the seeker; it begins with `strategy` if given.

        It depends on the history and the seed only. Raises UserError if the history is too long.
        """
        last_prompts: list[list[dict[str, str]]] = []

        def ask(conversations: Sequence[list[dict[str, str]]], free: bool = False) -> list[str]:
            if not free:
                last_prompts[:] = conversations
            return self._model(conversations, free=free, strategy=strategy)

        self._model.seed(len(history))
        opening = self._method.opening(prompt_messages(history, self.strategies))
        (raw,) = self._method([opening], ask)
        # For the prompt of the final reply, since a method that refines a draft calls the model more than once.
        probabilities = self._model.opening_probabilities(last_prompts[0])
        mass = sum(probabilities.values())
        scaled = {name: value / mass if mass else 1 / len(probabilities) for name, value in probabilities.items()}
        return Reply(*parse_reply(raw, self.strategies), scaled, mass)


def open_run(folder: Path, overrides: Sequence[str] = ()) -> Partner:
    """Returns the model of a run folder, which may be copied from another machine. `overrides`: KEY=VALUE of its configuration.

    Raises UserError if the run has no local model, or its configuration or checkpoint is missing or damaged.
    """
    cfg = run_configuration(folder, overrides)
    if is_api(cfg) or cfg.generation.engine == "server":
        raise UserError(
            f"{folder}: {cfg.backbone.name} is asked over HTTP, and only models of this machine can be talked to: give a run of a"
            " local backbone with generation.engine=local"
        )
    label = model_label(cfg)
    cfg, checkpoint = run_model(cfg, folder)
    return Partner(cfg, folder, checkpoint, label)


def _method(cfg: DictConfig, folder: Path) -> "Plain":
    """Returns the run's decoding strategy. Any other class is refused, since the configuration may come from another person."""
    from hydra.utils import get_class, instantiate

    from cso_lab.generation.decoding_strategies import Plain

    target = cfg.decoding.method._target_
    if not issubclass(get_class(target), Plain):
        raise UserError(f"{folder}: decoding.method._target_={target} is no decoding strategy: it must be a subclass of Plain")
    method = instantiate(cfg.decoding.method, _recursive_=False)
    method.resume(folder)
    return method


def _name(cfg: DictConfig, label: str) -> str:
    mode = f" ({cfg.finetune_mode.name})" if trains(cfg) else ""
    return f"{label}, {cfg.algorithm.name}{mode}"


def find_strategy(label: str, strategies: StrategySet) -> str:
    """Returns the strategy that a user named; case does not matter. Raises UserError, with the valid names, if there is none."""
    strategy = strategies.find(label)
    if strategy is None:
        raise unknown("strategy", label, strategies.names)
    return strategy
