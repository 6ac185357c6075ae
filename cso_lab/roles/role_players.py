"""The four players as the search sees them: each turns a history into messages, asks its model, and parses the reply."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cso_lab.core.records import Dialogue, Scores, SeekerReply, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.llm.client import Client, Question
from cso_lab.roles import parsing
from cso_lab.roles.prompts import PLACEHOLDERS, check_template, messages, transcript

History = tuple[Turn, ...]


class RolePlayers:
    """Seeker, supporter, strategist and judge of appendix A over one client.

    The same question (dialogue, role, messages, sample_key) has one answer: a second asker waits for the first one's.
    """

    def __init__(self, config: Mapping, client: Client, strategies: StrategySet, seed: int):
        """`config`: for each role its model, sampling, prompt templates and `show_strategies`."""
        for role in PLACEHOLDERS:
            for part in ("system", "query"):
                check_template(role, part, config[role][part])
        self._config, self._client, self._strategies, self._seed = config, client, strategies, seed
        self._answers: defaultdict[str, dict[str, object]] = defaultdict(dict)  # by dialogue, by question: _Asked, or parsed
        self._open = 0  # questions without an answer yet
        client.check({role: config[role]["model"] for role in PLACEHOLDERS})
        self._rubric = "\n".join(f"- {name}: {what}" for name, what in strategies.descriptions.items())

    async def seeker(self, dialogue: Dialogue, history: History, sample_key: str) -> SeekerReply:
        return await self._ask("seeker", dialogue, history, sample_key, parsing.parse_seeker)

    async def supporter(self, dialogue: Dialogue, history: History, strategy: str, sample_key: str) -> str:
        description = self._strategies.descriptions[strategy]
        values = {"strategy": strategy, "strategy_description": description}
        return await self._ask(
            "supporter", dialogue, history, sample_key, self._with_strategies(parsing.parse_supporter), values
        )

    async def strategist(self, dialogue: Dialogue, history: History, sample_key: str) -> dict[str, int]:
        return await self._ask("strategist", dialogue, history, sample_key, self._with_strategies(parsing.parse_strategist))

    async def judge(self, dialogue: Dialogue, history: History, sample_key: str) -> Scores:
        return await self._ask("judge", dialogue, history, sample_key, parsing.parse_judge)

    def _with_strategies(self, parse: Callable) -> Callable[[str], object]:
        return lambda reply: parse(reply, self._strategies)

    @property
    def idle(self) -> int:
        """How many of the slots for calls are free while nobody waits for one; 0 when anyone does.

        Simulated players answer in this very process: with them nothing is ever idle.
        """
        if all(self._config[role]["model"].startswith("simulated/") for role in PLACEHOLDERS):
            return 0
        return max(0, self._client.max_concurrency - self._open)

    async def _ask(self, role, dialogue: Dialogue, history: History, sample_key: str, parse: Callable, values: Mapping = {}):  # noqa: B006
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
        sampling = (config["model"], str(config["temperature"]), str(config["max_tokens"]))
        key = _digest(str(self._seed), dialogue.id, role, *sampling, system, query, sample_key).hex()
        answers = self._answers[dialogue.id]
        asked = answers.get(key)
        if asked is not None and not isinstance(asked, _Asked):
            return asked
        if asked is None:
            seed = self._question_seed(dialogue.id, role, query, sample_key)
            asked = answers[key] = self._put(Question(key, dialogue.id, role, config, chat, seed, parse))
        asked.waiters += 1
        try:
            # Who stops waiting takes the answer from nobody else.
            return await asyncio.shield(asked.answer)
        finally:
            asked.waiters -= 1

    def _put(self, question: Question) -> "_Asked":
        """Ask, on behalf of whoever waits for the answer by the time it can be asked."""

        def wanted() -> bool:
            if not asked.waiters:
                self._answers.get(question.dialogue, {}).pop(question.key, None)
            return asked.waiters > 0

        def answered(answer: asyncio.Task) -> None:
            self._open -= 1
            # An error is its askers' affair; there may be none left. Of an answer only the words are kept, there are so many.
            if not answer.cancelled() and not answer.exception() and question.dialogue in self._answers:
                self._answers[question.dialogue][question.key] = answer.result()

        self._open += 1
        asked = _Asked(asyncio.ensure_future(self._client.ask(question, wanted)))
        asked.answer.add_done_callback(answered)
        return asked

    def forget(self, dialogue: Dialogue) -> None:
        """Drop the answers of a dialogue that is finished or set aside."""
        self._answers.pop(dialogue.id, None)

    def _question_seed(self, *key: str) -> int:
        """A seed for this question alone, so that answers do not depend on the order in which questions are asked."""
        return int.from_bytes(_digest(str(self._seed), *key)[:4], "big") >> 1


@dataclass
class _Asked:
    """One question's answer to come, and how many wait for it."""

    answer: asyncio.Task
    waiters: int = 0


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()[:16]
