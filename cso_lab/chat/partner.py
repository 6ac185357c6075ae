"""Run folder -> somebody to talk to: the run's model, prompt and decoding, and how likely it thought each strategy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.config import CONF
from cso_lab.config.cells import is_api, trains
from cso_lab.config.schema import check_local_generation
from cso_lab.core.errors import UserError, unknown
from cso_lab.core.files import read_json
from cso_lab.core.records import Turn, prompt_messages
from cso_lab.core.strategies import StrategySet, parse_reply, strategy_set


@dataclass(frozen=True)
class Reply:
    """What the model said. `strategy` is None when it opened with none of the set; `text` is then all it said.

    `probabilities`: of each strategy of the set as the reply's opening, before anything was forced, scaled to sum to 1;
    `mass`: what they sum to unscaled, the rest being openings of any other form.
    """

    strategy: str | None
    text: str
    probabilities: dict[str, float]
    mass: float


def shares(reply: Reply) -> str:
    """What the probabilities are of, in words: they can be shares of very little."""
    mass = f"{reply.mass:.2%}" if reply.mass >= 1e-4 else "less than 0.01%"
    return f"These {len(reply.probabilities)} openings hold {mass} of the probability; shown is how they share it."


class Partner:
    """A model to talk to. It keeps no conversation: it is handed the whole of it every time."""

    def __init__(self, cfg: DictConfig, folder: Path, checkpoint: Path | None):
        from cso_lab.generation.local import LocalModel

        self.name = _name(cfg)
        self.strategies: StrategySet = strategy_set(cfg.data.strategies)
        self._method = _method(cfg, folder)
        self._model = LocalModel(cfg, checkpoint, self.strategies)

    def load(self) -> None:
        """Load the weights now, and not at the first message."""
        self._model.load()

    def reply(self, history: Sequence[Turn], strategy: str | None = None) -> Reply:
        """The reply to a history that ends with the seeker; with `strategy`, one that opens with it. Same history and seed, same reply."""
        asked = []

        def ask(conversations, free: bool = False):
            if not free:
                asked[:] = conversations
            return self._model(conversations, free=free, strategy=strategy)

        self._model.seed(len(history))
        opening = self._method.opening(prompt_messages(history, self.strategies))
        (raw,) = self._method([opening], ask)
        # Of the prompt the final reply was written after: a method that refines a draft asks more than once.
        found = self._model.opening_probabilities(asked[0])
        mass = sum(found.values())
        scaled = {name: value / mass if mass else 1 / len(found) for name, value in found.items()}
        return Reply(*parse_reply(raw, self.strategies), scaled, mass)


def open_run(folder: Path, overrides: Sequence[str] = ()) -> Partner:
    """The model of a run folder, also one that was copied here from another machine. `overrides`: KEY=VALUE of its configuration."""
    cfg = _configuration(folder, overrides)
    if is_api(cfg) or cfg.generation.engine == "server":
        raise UserError(
            f"{folder}: {cfg.backbone.name} is asked over HTTP, and only models of this machine can be talked to: give a run of a"
            " local backbone with generation.engine=local"
        )
    checkpoint = _checkpoint(folder) if trains(cfg) else None
    if checkpoint and not _is_adapter(checkpoint):
        # A whole model needs nothing of the one it was trained from, which may lie on another machine.
        cfg.backbone.path, checkpoint = str(checkpoint), None
    return Partner(cfg, folder, checkpoint)


def _configuration(folder: Path, overrides: Sequence[str]) -> DictConfig:
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"no config.yaml in {folder}: give the folder of a run (run.py prints it, and reports name it)")
    cfg = OmegaConf.load(file)
    if cfg.hardware.device == "cuda":
        cfg.hardware.device = "auto"  # the machine it ran on
    if not Path(cfg.shared_dir).is_dir():
        cfg.shared_dir = OmegaConf.load(CONF / "config.yaml").shared_dir
    OmegaConf.set_struct(cfg, True)
    if wrong := [override for override in overrides if "=" not in override]:
        raise UserError(f"{wrong[0]!r} is no KEY=VALUE of the run's configuration (see --help)")
    cfg = OmegaConf.merge(cfg, OmegaConf.from_dotlist(list(overrides)))
    check_local_generation(cfg)
    return cfg


def _checkpoint(folder: Path) -> Path:
    """The run's own checkpoint, or that of the cell it was taken over from: where that was, or beside this one in a copied sweep."""
    from cso_lab.training.backbone import check_whole

    file = folder / "stages.json"
    left = read_json(file).get("train") if file.exists() else None
    places = [folder, *([Path(left), folder.resolve().parent / Path(left).name] if left else [])]
    for place in places:
        if (place / "checkpoint").is_dir():
            check_whole(place / "checkpoint")
            return place / "checkpoint"
    raise UserError(f"no checkpoint in {folder}: run its train stage, or copy the run with its checkpoint folder")


def _is_adapter(checkpoint: Path) -> bool:
    from cso_lab.training.backbone import is_adapter

    return is_adapter(checkpoint)


def _method(cfg: DictConfig, folder: Path):
    """The run's decoding strategy. The configuration may come from elsewhere, so it can name no other kind of thing."""
    from hydra.utils import get_class, instantiate

    from cso_lab.generation.decoding_strategies import Plain

    target = cfg.decoding.method._target_
    if not issubclass(get_class(target), Plain):
        raise UserError(f"{folder}: decoding.method._target_={target} is no decoding strategy: it must be a subclass of Plain")
    method = instantiate(cfg.decoding.method, _recursive_=False)
    method.resume(folder)
    return method


def _name(cfg: DictConfig) -> str:
    mode = f" ({cfg.finetune_mode.name})" if trains(cfg) else ""
    return f"{cfg.backbone.label}, {cfg.algorithm.name}{mode}"


def forced(label: str, strategies: StrategySet) -> str:
    """The strategy a user means, whatever its case; an error lists the valid ones."""
    found = strategies.find(label)
    if found is None:
        raise unknown("strategy", label, strategies.names)
    return found
