"""The role players of conversations that are asked over the client: seeker, judges, and the players of the references.

Every call is in one journal before its reply is used, so that an interrupted run pays for no reply twice.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cso_lab.config.clients import LIMITS
from cso_lab.conversation.records import Conversation
from cso_lab.core.hashing import digest
from cso_lab.core.records import Turn
from cso_lab.llm.ask_all import ask_all
from cso_lab.llm.client import Client, Question
from cso_lab.llm.journal import Journal
from cso_lab.roles.prompts import messages, transcript

# Seconds after which the progress of one round of questions is shown; simulated players answer at once.
_PROGRESS_DELAY = 5


class Players:
    """Asks players questions about conversations. Use it in a `with`, which opens the journal."""

    def __init__(self, limits: Mapping, folder: Path, seekers: Sequence[int], seed: int):
        """`limits`: the keys of the config node `roles` that go to the client; others are ignored."""
        self._limits, self._seed = {key: limits[key] for key in LIMITS}, seed
        self._journal = Journal(folder, [str(seeker) for seeker in seekers])

    def __enter__(self) -> "Players":
        self._journal.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._journal.__exit__(*exception)

    @property
    def usage(self) -> dict:
        """What all calls have used so far, those of interrupted runs too."""
        return self._journal.usage.to_json()

    def ask(self, questions: Sequence[Question], title: str) -> tuple[list, dict[int, str]]:
        """Returns (answers, reasons by index of the questions that were refused); see `ask_all` and `Client.check`."""
        if not questions:
            return [], {}
        # A client for every call, because it belongs to one event loop; the journal counts the usage of all of them.
        client = Client(**self._limits, journal=self._journal)
        client.check({question.role: question.model["model"] for question in questions})
        return ask_all(client, self._journal, questions, title, "turn", _PROGRESS_DELAY)

    def question(
        self,
        role: str,
        player: Mapping,
        conversation: Conversation,
        turn: int,
        history: Sequence[Turn],
        parse: Callable[[str], object],
        values: Mapping[str, str],
    ) -> Question:
        """Returns the question to `player` (model, sampling, prompts) about supporter turn number `turn`, from 0.

        `values` are those of its placeholders beside {dialogue}, {scene} and {description}.
        """
        card = conversation.card
        values = {
            "dialogue": transcript(history, player.get("show_strategies", False)),
            "scene": card.scene,
            "description": card.description,
            **values,
        }
        chat = messages(player["system"], player["query"], values)
        sampling = {key: player[key] for key in ("model", "temperature", "max_tokens")}
        key = digest([self._seed, role, sampling, chat, conversation.seeker, turn])
        return Question(key, str(conversation.seeker), role, sampling, chat, int(key[:8], 16) >> 1, parse)
