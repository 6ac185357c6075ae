"""The role players of conversations that are asked over the client: seeker, judges, and the players of the references.

Every call is in one journal before its reply is used, so that an interrupted run pays for no reply twice.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cso_lab.config.clients import LIMITS
from cso_lab.conversation.records import Conversation
from cso_lab.core.hashing import digest
from cso_lab.core.records import SEEKER, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.llm.ask_all import ask_all
from cso_lab.llm.client import Client
from cso_lab.llm.config_location import ROLES, ConfigLocation
from cso_lab.llm.journal import Journal
from cso_lab.llm.question import Question, model_config
from cso_lab.llm.reply_form import AUTO, ReplyForm
from cso_lab.llm.transport import Transport
from cso_lab.roles.prompts import messages, transcript
from cso_lab.roles.reply_options import reply_options

HARM = "harm"
"""The role of the model that judges harm."""
# Seconds after which the progress of one round of questions is shown; simulated players answer at once.
_PROGRESS_DELAY = 5
_OWN = ConfigLocation("roles", "conversation.{role}.model", "conversation.{role}.max_tokens", "conversation.{role}.temperature")


def place_of(role: str) -> ConfigLocation:
    """Returns where the player of a role is configured: seeker and harm below `conversation`, the others among the roles."""
    return _OWN if role in (SEEKER, HARM) else ROLES


class Players:
    """Asks players questions about conversations. Use it in a `with`, which opens the journal."""

    def __init__(self, roles: Mapping, folder: Path, seekers: Sequence[int], strategies: StrategySet, seed: int):
        """`roles`: the config node. Turns follow one another, so nothing is asked in batches."""
        self._limits, self._seed = {key: roles[key] for key in LIMITS} | {"batch": False}, seed
        self._options = reply_options(roles, strategies)
        self._journal = Journal(folder, [str(seeker) for seeker in seekers])
        # One for all clients of a place, since it remembers what the server refuses.
        self._transports: dict[ConfigLocation, Transport] = {}

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
        """Returns (answers, reasons by index of the questions that were refused); see `ask_all` and `Client.check`.

        The questions are those of one role.
        """
        if not questions:
            return [], {}
        place = place_of(questions[0].role)
        if place not in self._transports:
            self._transports[place] = Transport(self._limits["api_base"], self._limits["api_key_env"], place)
        # A client for every call, because it belongs to one event loop; the journal counts the usage of all of them.
        client = Client(**self._limits, journal=self._journal, place=place, transport=self._transports[place])
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
        schema: Mapping | None = None,
    ) -> Question:
        """Returns the question to `player` (model, sampling, prompts) about supporter turn number `turn`, from 0.

        `values` are those of its placeholders beside {dialogue}, {scene} and {description}; `schema` that of the reply of a player of
        conversations alone, which answers in JSON.
        """
        card = conversation.card
        values = {
            "dialogue": transcript(history, player.get("show_strategies", False)),
            "scene": card.scene,
            "description": card.description,
            **values,
        }
        chat = messages(player["system"], player["query"], values)
        sampling = model_config(player["model"], player["temperature"], player["max_tokens"], player.get("extra"))
        key = digest([self._seed, role, sampling, chat, conversation.seeker, turn])
        options = self._options.get(role, {}) if schema is None else {"form": ReplyForm(schema, player.get("structured", AUTO))}
        return Question(key, str(conversation.seeker), role, sampling, chat, int(key[:8], 16) >> 1, parse, **options)
