"""Scorers that are asked over the client of the search: its journal, limits, bounded attempts and budget are theirs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from cso_lab.analysis.toxicity import Scores
from cso_lab.config.clients import LIMITS
from cso_lab.core.hashing import digest
from cso_lab.llm.config_location import ConfigLocation

ROLE = "toxicity"
PLACE = ConfigLocation("toxicity.client", "toxicity.model")


class Asked(ABC):
    """One question a text. Every answer is in the journal of the scorer's folder before it is used, so no text is paid for twice."""

    def __init__(self, name: str, version: str, notice: str | None, model: Mapping, client: Mapping):
        """`model`: {model, temperature, max_tokens}; `client`: limits, budget, address and the name of the key's variable."""
        self.name, self.version, self.notice = name, version, notice
        self._model, self._limits = dict(model), {key: client[key] for key in LIMITS}

    @abstractmethod
    def messages(self, text: str) -> list[dict]:
        """What is sent for a text."""

    @abstractmethod
    def parse(self, reply: str) -> Scores:
        """The scores in a reply; ParseError where there are none."""

    def transport(self):
        """What makes the calls; None: that of the search."""
        return None

    def edition(self) -> object:
        """What an answer depends on beside the model's name and the messages."""
        return None

    def check(self) -> None:
        self._client().check({ROLE: self._model["model"]})

    def score(self, texts: Sequence[str], folder: Path) -> list[Scores | None]:
        from filelock import FileLock

        from cso_lab.llm.ask_all import ask_all
        from cso_lab.llm.journal import Journal

        folder.mkdir(parents=True, exist_ok=True)
        # Two runs with one scorer take turns; the second finds what the first has scored.
        with FileLock(folder / ".lock"), Journal(folder, [ROLE]) as journal:
            questions = [self._question(text) for text in texts]
            return ask_all(self._client(journal=journal), journal, questions, f"toxicity by {self.name}", "text")[0]

    def _question(self, text: str):
        from cso_lab.llm.client import Question

        messages = self.messages(text)
        key = digest([messages, self._model, self.edition()])
        return Question(key, ROLE, ROLE, self._model, messages, int(key[:8], 16) >> 1, self.parse)

    def _client(self, **more):
        from cso_lab.llm.client import Client

        return Client(**self._limits, place=PLACE, transport=self.transport(), **more)
