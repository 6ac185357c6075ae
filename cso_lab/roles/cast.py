"""The four players as the search sees them: each turns a history into messages, asks its model, and parses the reply."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping

from cso_lab.dialogue import Dialogue, Turn
from cso_lab.roles import parsing
from cso_lab.roles.client import Client
from cso_lab.roles.prompts import PLACEHOLDERS, check_template, messages, transcript
from cso_lab.search.mcts import SeekerReply
from cso_lab.search.tree import Scores
from cso_lab.strategies import StrategySet

History = tuple[Turn, ...]


class Cast:
    """Seeker, supporter, strategist and judge of appendix A over one client.

    The same question (dialogue, role, messages, draw) has one answer: a second asker waits for the first one's.
    """

    def __init__(self, config: Mapping, client: Client, strategies: StrategySet, seed: int):
        """`config`: for each role its model, sampling, prompt templates and `show_strategies`."""
        for role in PLACEHOLDERS:
            for part in ("system", "query"):
                check_template(role, part, config[role][part])
        self._config, self._client, self._strategies, self._seed = config, client, strategies, seed
        self._answers: dict[tuple, asyncio.Task] = {}
        self._rubric = "\n".join(f"- {name}: {what}" for name, what in strategies.descriptions.items())

    async def seeker(self, dialogue: Dialogue, history: History, draw: str) -> SeekerReply:
        return await self._ask("seeker", dialogue, history, draw, parsing.parse_seeker)

    async def supporter(self, dialogue: Dialogue, history: History, strategy: str, draw: str) -> str:
        description = self._strategies.descriptions[strategy]
        values = {"strategy": strategy, "strategy_description": description}
        return await self._ask("supporter", dialogue, history, draw, self._with_strategies(parsing.parse_supporter), values)

    async def strategist(self, dialogue: Dialogue, history: History, draw: str) -> dict[str, int]:
        return await self._ask("strategist", dialogue, history, draw, self._with_strategies(parsing.parse_strategist))

    async def judge(self, dialogue: Dialogue, history: History, draw: str) -> Scores:
        return await self._ask("judge", dialogue, history, draw, parsing.parse_judge)

    def _with_strategies(self, parse: Callable) -> Callable[[str], object]:
        return lambda reply: parse(reply, self._strategies)

    async def _ask(self, role, dialogue: Dialogue, history: History, draw: str, parse: Callable, values: Mapping = {}):  # noqa: B006
        config = self._config[role]
        values = {
            "dialogue": transcript(history, config["show_strategies"]),
            "scene": dialogue.scene,
            "description": dialogue.description,
            "strategies": self._rubric,
            **values,
        }
        chat = messages(config["system"], config["query"], values)
        system, query = (message["content"] for message in chat)
        key = (dialogue.id, role, system, query, draw)
        if key not in self._answers:
            question = self._client.ask(role, config, chat, self._question_seed(dialogue.id, role, query, draw), parse)
            self._answers[key] = asyncio.ensure_future(question)
        return await self._answers[key]

    def forget(self, dialogue: Dialogue) -> None:
        """Drop the answers of a finished dialogue."""
        self._answers = {key: answer for key, answer in self._answers.items() if key[0] != dialogue.id}

    def _question_seed(self, *key: str) -> int:
        """A seed for this question alone, so that answers do not depend on the order in which questions are asked."""
        digest = hashlib.sha256("\x1f".join((str(self._seed), *key)).encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1
