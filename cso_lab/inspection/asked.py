"""Scorers that are asked over the client of the search: its journal, limits, bounded attempts and budget are theirs."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cso_lab.errors import UserError
from cso_lab.inspection.toxicity import Scores
from cso_lab.naming import digest
from cso_lab.roles import LIMITS, Place

ROLE = "toxicity"
PLACE = Place("toxicity.client", "toxicity.model")


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
        """The scores in a reply; GarbledReply where there are none."""

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

        from cso_lab.roles.budget import BudgetSpent
        from cso_lab.roles.journal import Journal

        folder.mkdir(parents=True, exist_ok=True)
        found: list[Scores | None] = [None] * len(texts)
        failures: Counter[str] = Counter()
        # Two runs with one scorer take turns; the second finds what the first has scored.
        with FileLock(folder / ".lock"), Journal(folder, [ROLE]) as journal:
            try:
                asyncio.run(self._ask_all(texts, journal, found, failures))
            except BudgetSpent as spent:
                scored = sum(scores is not None for scores in found)
                raise BudgetSpent(
                    f"{spent}: {scored} of {len(texts)} texts are scored and kept; raise the cap, and the same command goes on"
                ) from None
        if failures:
            raise UserError(
                f"{failures.total()} of {len(texts)} texts got no score, most often: {failures.most_common(1)[0][0]};"
                " the same command asks for these again, and for no other"
            )
        return found

    def _client(self, **more):
        from cso_lab.roles.client import Client

        return Client(**self._limits, place=PLACE, transport=self.transport(), **more)

    async def _ask_all(self, texts: Sequence[str], journal, found: list[Scores | None], failures: Counter[str]) -> None:
        from tqdm.auto import tqdm

        from cso_lab.roles.client import Question
        from cso_lab.roles.faults import Refused, RoleFailure

        client = self._client(journal=journal)

        async def one(number: int, text: str) -> None:
            messages = self.messages(text)
            key = digest([messages, self._model, self.edition()])
            try:
                found[number] = await client.ask(
                    Question(key, ROLE, ROLE, self._model, messages, int(key[:8], 16) >> 1, self.parse)
                )
            except Refused:
                pass
            except RoleFailure as reason:
                failures[str(reason)] += 1
            bar.update()

        with tqdm(total=len(texts), desc=f"toxicity by {self.name}", unit="text") as bar:
            async with client:
                try:
                    async with asyncio.TaskGroup() as group:
                        for number, text in enumerate(texts):
                            group.create_task(one(number, text))
                except BaseExceptionGroup as failed:
                    # One is enough to say what is wrong; what the user can put right comes first.
                    raise min(failed.exceptions, key=lambda error: not isinstance(error, UserError)) from None
