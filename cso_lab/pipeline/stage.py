"""What every stage says of itself: its name, the version of its results, what they depend on, and how they come about."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from omegaconf import DictConfig

from cso_lab.config.result_settings import Config, resolved
from cso_lab.core.hashing import digest
from cso_lab.pipeline.sources import sources

if TYPE_CHECKING:
    from cso_lab.pipeline.cell_context import CellContext


class Result(ABC):
    """A kind of result that is found by a key.

    Raise `version` in the very change that makes the result another one from the same configuration and the same inputs: another prompt,
    another order of rows, another loss, another number, a mended fault. Earlier results are then made anew, and what builds on them
    follows by itself, since every key holds those of its inputs. Do not raise it for what leaves results as they are (docstrings, names,
    speed, messages): everybody's trainings would be done again. Code that several stages use (strategies, chat format, loading of models)
    changes the results of each of them. Code outside the package counts by its source, see `sources`.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    @staticmethod
    @abstractmethod
    def settings(cfg: Config) -> dict:
        """Returns the values of a resolved configuration that the result depends on, beside the files that are read for it."""

    @classmethod
    def key(cls, cfg: DictConfig, *inputs: object) -> str:
        """Returns the key of the result: a hash of the version, the settings, the code outside the package that these name, and of
        `inputs`, which stand for the content of what is read."""
        values = cls.settings(resolved(cfg))
        return digest({"version": cls.version, "settings": values, "code": sources(values), "inputs": inputs})


class Stage(ABC):
    """One stage of the pipeline."""

    name: ClassVar[str]
    # A cell that trains nothing here has no use for the stage.
    of_training: ClassVar[bool] = False
    # Whether a reference of conversations (conversation.reference) has a use for the stage: it has no model.
    of_reference: ClassVar[bool] = False

    @abstractmethod
    def run(self, cell: "CellContext") -> None:
        """Leave the stage's files, or find them where they are finished. Raises UserError where what it needs is missing."""
