"""The interfaces of results, which are found by a key, and of the stages that make them."""

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

    Raise `version` in the same change that makes the result differ for the same configuration and inputs: another prompt, order of rows,
    loss or number, a corrected fault. Earlier results are then computed again, and so are the results that depend on them, since a key
    includes those of its inputs. Do not raise it for changes that leave results unchanged (docstrings, names, speed, messages): all users'
    trainings would be repeated. Code that several stages use (strategies, chat format, loading of models) changes the results of all of
    them. Code outside the package is part of the key by its source, see `sources`.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    @staticmethod
    @abstractmethod
    def settings(cfg: Config) -> dict:
        """Returns the values of a resolved configuration that the result depends on, without the files it is made from."""

    @classmethod
    def key(cls, cfg: DictConfig, *inputs: object) -> str:
        """Returns the key of the result: a hash of its version, its settings, the code outside this package that they name, and
        `inputs`, the digests of the files it is made from."""
        values = cls.settings(resolved(cfg))
        return digest({"version": cls.version, "settings": values, "code": sources(values), "inputs": inputs})


class Stage(ABC):
    """One stage of the pipeline."""

    name: ClassVar[str]
    # Whether cells that train nothing here skip the stage.
    of_training: ClassVar[bool] = False
    # Whether a reference of conversations (conversation.reference) has a use for the stage: it has no model.
    of_reference: ClassVar[bool] = False

    @abstractmethod
    def run(self, cell: "CellContext") -> None:
        """Writes the stage's files unless they are finished. Raises UserError if an input is missing."""
