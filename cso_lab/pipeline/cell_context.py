"""The context of one cell: its configuration, run folder and stage cache, and the inputs that several stages read."""

from copy import copy
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from cso_lab.config.cells import expanded, previous_round
from cso_lab.core.errors import UserError
from cso_lab.core.model_files import model_content
from cso_lab.core.strategies import StrategySet, strategy_set
from cso_lab.pipeline.run_record import typed_overrides
from cso_lab.pipeline.stage_cache import StageCache
from cso_lab.tracking import Tracker


@dataclass(frozen=True)
class Supporter:
    """The model of the round before as supporter of a search: the key of its training, and its checkpoint once that is there."""

    training_key: str
    checkpoint: Path | None = None


class CellContext:
    """The argument of the stages of one cell. `in_sweep` says that the cell belongs to a sweep, which reports on all its cells.

    `before`: the same cell, folder and cache, as it is in the round before its last one; None in a first round.
    `supporter`: the supporter of a later round's search; None until the round before is known to have a dataset.
    """

    def __init__(self, cfg: DictConfig, folder: Path, in_sweep: bool = False, tracker: Tracker | None = None):
        self.cfg, self.folder, self.in_sweep = cfg, folder, in_sweep
        self.cache = StageCache(cfg, folder, tracker)
        self.supporter: Supporter | None = None
        self.before = self._round_before()

    def _round_before(self) -> "CellContext | None":
        previous = previous_round(self.cfg)
        if previous is None:
            return None
        before = copy(self)
        before.cfg = previous
        before.before = before._round_before()
        return before

    def rounds(self) -> list["CellContext"]:
        """Returns the cell as it is in each of its rounds, the first one first and itself last."""
        return [*(self.before.rounds() if self.before is not None else ()), self]

    def dialogues(self) -> tuple:
        """Returns (corpus, training dialogues, test dialogues)."""
        from cso_lab.corpora import divide

        return divide(self.cfg.data)

    def measured_dialogues(self) -> tuple:
        """Returns (training dialogues, dialogues that are measured on: `generation.dialogues`)."""
        from cso_lab.corpora import divide

        return divide(self.cfg.data, self.cfg.generation.dialogues)[1:]

    def searched_dialogues(self) -> tuple | None:
        """Returns the training dialogues that the whole search expands; None if the data is expanded already."""
        from cso_lab.corpora import seeds

        return None if expanded(self.cfg) else seeds(self.dialogues()[1], self.cfg.data.seed_dialogues)

    @property
    def strategies(self) -> StrategySet:
        """The strategy set of the cell's data."""
        return strategy_set(self.cfg.data.strategies)

    def data_digest(self) -> object:
        """Returns the identity of the data's content, for keys."""
        from cso_lab.corpora import data_identity

        return data_identity(self.cfg.data)

    def model_digest(self, path: str | None) -> str | None:
        """Returns the identity of the content of a model, given by its folder or hub id, for keys."""
        return model_content(path, Path(self.cfg.shared_dir) / "digests")

    def backbone_digest(self) -> str | None:
        """Returns the identity of the content of the backbone's weights and tokenizer, for keys."""
        from cso_lab.training.backbone import weights_version

        backbone = self.cfg.backbone
        return self.model_digest(backbone.path) if backbone.get("path") is not None else weights_version(backbone)

    def missing(self, stages: str, problem: str, parts: list[str] | None = None) -> UserError:
        """Returns an error that says what is missing and the command that makes it. `parts`: those of a search that have not run."""
        typed = [o for o in typed_overrides() if not o.startswith("stages=") and not (parts and o.startswith("data.shard="))]
        if parts:
            typed.append(f"data.shard={','.join(parts)}")
        command = " ".join(
            [
                "python run.py -m" if parts and len(parts) > 1 else "python run.py",
                f"'stages=[{stages}]'",
                *(f"'{o}'" if "[" in o or " " in o else o for o in typed),
            ]
        )
        return UserError(f"{problem}; make them with: {command}")
