"""Scorers that call a model through the LLM client, with its journal, limits, retries and budget."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cso_lab.analysis.toxicity import Scores
from cso_lab.config.clients import LIMITS
from cso_lab.core.hashing import digest
from cso_lab.llm.config_location import ConfigLocation

if TYPE_CHECKING:
    from cso_lab.llm.client import Client, Question
    from cso_lab.llm.reply_form import ReplyForm
    from cso_lab.llm.transport import Transport

ROLE = "toxicity"
LOCATION = ConfigLocation("toxicity.client", "toxicity.model", "toxicity.max_tokens", "toxicity.temperature")


class LLMScorer(ABC):
    """A scorer (see `toxicity.Scorer`) that sends one question a text.

    Every reply is written to the journal of the scorer's folder before it is used, so that no text is paid for twice.
    """

    def __init__(self, name: str, version: str, notice: str | None, model: Mapping, client: Mapping):
        """`model`: {model, temperature, max_tokens, extra}; `client`: limits, budget, address and the name of the key's variable."""
        self.name, self.version, self.notice = name, version, notice
        self._limits = {key: client[key] for key in LIMITS}
        # Without `extra` if there is none, since the model is part of the journal's keys.
        self._model = {key: value for key, value in model.items() if key != "extra" or value}

    @abstractmethod
    def messages(self, text: str) -> list[dict]:
        """Returns the messages that are sent for a text."""

    @abstractmethod
    def parse(self, reply: str) -> Scores:
        """Returns the scores in a reply. Raises ParseError if there are none."""

    def form(self) -> "ReplyForm | None":
        """Returns the form in which replies are asked for; None if it is left to the prompt."""
        return None

    def transport(self) -> "Transport | None":
        """Returns the transport of the calls; None for the client's own, chat completions."""
        return None

    def edition(self) -> object:
        """Returns what a reply depends on beside the model's name and the messages; a change invalidates journaled replies."""
        return None

    def check(self) -> None:
        """Raises UserError if the model cannot be called."""
        client, models = self._client(), {ROLE: self._model["model"]}
        client.check(models)
        client.check_batches(models)

    def score(self, texts: Sequence[str], folder: Path) -> list[Scores | None]:
        """Returns the scores of the texts, None for a refused one; replies in the journal of `folder` are not requested again."""
        from filelock import FileLock

        from cso_lab.llm.ask_all import ask_all
        from cso_lab.llm.journal import Journal

        folder.mkdir(parents=True, exist_ok=True)
        # A second run with the same scorer waits, and then finds the replies of the first in the journal.
        with FileLock(folder / ".lock"), Journal(folder, [ROLE]) as journal:
            questions = [self._question(text) for text in texts]
            return ask_all(self._client(journal=journal), journal, questions, f"toxicity by {self.name}", "text")[0]

    def _question(self, text: str) -> "Question":
        from cso_lab.llm.client import Question

        messages = self.messages(text)
        key = digest([messages, self._model, self.edition()])
        return Question(key, ROLE, ROLE, self._model, messages, int(key[:8], 16) >> 1, self.parse, self.form())

    def _client(self, **options) -> "Client":
        from cso_lab.llm.client import Client

        return Client(**self._limits, place=LOCATION, transport=self.transport(), **options)
