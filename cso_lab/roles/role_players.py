"""The four roles played by language models: each turns a history into messages, asks its model and parses the reply."""

import asyncio
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cso_lab.core.records import Dialogue, Scores, SeekerReply, Turn, prompt_messages
from cso_lab.core.strategies import StrategySet, format_reply
from cso_lab.llm.client import Client, Question
from cso_lab.llm.in_process import OWN_SUPPORTER
from cso_lab.roles import parsing
from cso_lab.roles.noise import add_noise
from cso_lab.roles.prompts import PLACEHOLDERS, check_template, messages, transcript
from cso_lab.roles.reply_options import reply_options

History = tuple[Turn, ...]


class RolePlayers:
    """Seeker, supporter, strategist and judge of appendix A over one client.

    Questions with the same dialogue, role, messages and sample key have one answer: a second caller waits for that of the first.
    """

    def __init__(self, config: Mapping, client: Client, strategies: StrategySet, seed: int):
        """`config`: for each role its model, sampling parameters, prompts and `show_strategies`; and `cut_replies` (default: trim).

        Raises UserError if a template has an unknown placeholder or if a model cannot be called.
        """
        for role in PLACEHOLDERS:
            for part in ("system", "query"):
                check_template(role, part, config[role][part])
        self._config, self._client, self._strategies, self._seed = config, client, strategies, seed
        # By dialogue id and question key: a _PendingAnswer, or the parsed answer.
        self._answers: defaultdict[str, dict[str, object]] = defaultdict(dict)
        self._pending = 0  # questions without an answer yet
        client.check({role: config[role]["model"] for role in PLACEHOLDERS})
        self._options = reply_options(config, strategies)
        self._strategy_list = "\n".join(f"- {name}: {description}" for name, description in strategies.descriptions.items())

    async def seeker(self, dialogue: Dialogue, history: History, sample_key: str) -> SeekerReply:
        """Returns the seeker's reply to the last supporter turn. Raises the errors of `Client.ask`, like the other roles."""
        return await self._ask("seeker", dialogue, history, sample_key, parsing.parse_seeker)

    async def supporter(self, dialogue: Dialogue, history: History, strategy: str, sample_key: str) -> str:
        """Returns a supporter's utterance in `strategy` after the last seeker turn."""
        parse = self._with_strategies(parsing.parse_supporter)
        if self._config["supporter"]["model"] == OWN_SUPPORTER:
            # The prompt it is trained with; what it goes on with after the strategy is its own reply.
            opening = {"role": "assistant", "content": format_reply(strategy, "").rstrip()}
            chat = [*prompt_messages(history, self._strategies), opening]
            return await self._ask("supporter", dialogue, history, sample_key, parse, chat=chat)
        values = {"strategy": strategy, "strategy_description": self._strategies.descriptions[strategy]}
        return await self._ask("supporter", dialogue, history, sample_key, parse, values)

    async def strategist(self, dialogue: Dialogue, history: History, sample_key: str) -> dict[str, int]:
        """Returns scores from 0 to 10 for strategies of the next supporter turn; some strategies may be missing."""
        return await self._ask("strategist", dialogue, history, sample_key, self._with_strategies(parsing.parse_strategist))

    async def judge(self, dialogue: Dialogue, history: History, sample_key: str) -> Scores:
        """Returns the scores of the last supporter turn, {"E", "I", "H", "S"}, each 0 to 4, with the configured noise."""
        scores = await self._ask("judge", dialogue, history, sample_key, parsing.parse_judge)
        noise = self._config["judge"].get("noise")
        if not noise:
            return scores
        # Of the question as a judge sees it, so that a question that is asked twice has one answer.
        shown = transcript(history, self._config["judge"]["show_strategies"])
        return add_noise(scores, noise, random.Random(self._question_seed(dialogue.id, "noise", shown, sample_key)))

    def _with_strategies(self, parse: Callable[[str, StrategySet], object]) -> Callable[[str], object]:
        return lambda reply: parse(reply, self._strategies)

    @property
    def idle(self) -> int:
        """The number of free slots for calls; 0 if any question waits for one, and with players of this process, which have none idle."""
        if all(self._config[role]["model"].startswith(("simulated/", "self/")) for role in PLACEHOLDERS):
            return 0
        return max(0, self._client.max_concurrency - self._pending)

    async def _ask(
        self,
        role: str,
        dialogue: Dialogue,
        history: History,
        sample_key: str,
        parse: Callable[[str], object],
        values: Mapping[str, str] = MappingProxyType({}),
        chat: list[dict[str, str]] | None = None,
    ) -> object:
        """Returns the parsed answer of `role`; `values` are those of the placeholders that only this role has. `chat`: the messages, in
        place of those of the role's templates."""
        config = self._config[role]
        values = {
            "dialogue": transcript(history, config["show_strategies"]),
            "scene": dialogue.scene,
            "description": dialogue.description,
            "strategies": self._strategy_list,
            **values,
        }
        chat = chat or messages(config["system"], config["query"], values)
        contents = [message["content"] for message in chat]
        sampling = [config["model"], str(config["temperature"]), str(config["max_tokens"])]
        if config.get("extra"):
            sampling.append(json.dumps(config["extra"], sort_keys=True))
        key = _digest(str(self._seed), dialogue.id, role, *sampling, *contents, sample_key).hex()
        answers = self._answers[dialogue.id]
        pending = answers.get(key)
        if pending is not None and not isinstance(pending, _PendingAnswer):
            return pending
        if pending is None:
            seed = self._question_seed(dialogue.id, role, *contents[1:], sample_key)
            question = Question(key, dialogue.id, role, config, chat, seed, parse, **self._options.get(role, {}))
            pending = answers[key] = self._submit(question)
        pending.waiters += 1
        try:
            # Shielded, since cancelling one waiter must not cancel the answer for the others.
            return await asyncio.shield(pending.task)
        finally:
            pending.waiters -= 1

    def _submit(self, question: Question) -> "_PendingAnswer":
        """Starts asking a question; it is dropped if nobody waits for the answer when the call would be made."""

        def wanted() -> bool:
            if not pending.waiters:
                self._answers.get(question.dialogue, {}).pop(question.key, None)
            return pending.waiters > 0

        def finish(task: asyncio.Task) -> None:
            self._pending -= 1
            # Only the answer is kept, not its task, to save memory. An error is raised by the waiters, if there are any.
            if not task.cancelled() and not task.exception() and question.dialogue in self._answers:
                self._answers[question.dialogue][question.key] = task.result()

        self._pending += 1
        pending = _PendingAnswer(asyncio.ensure_future(self._client.ask(question, wanted)))
        pending.task.add_done_callback(finish)
        return pending

    def forget(self, dialogue: Dialogue) -> None:
        """Drops the answers of a dialogue that is finished or set aside, to free memory."""
        self._answers.pop(dialogue.id, None)

    def _question_seed(self, *key: str) -> int:
        """Returns the seed of one question, from 0 to 2**31 - 1; it does not depend on the order in which questions are asked."""
        return int.from_bytes(_digest(str(self._seed), *key)[:4], "big") >> 1


@dataclass
class _PendingAnswer:
    """The task that gets the answer to one question, and how many callers wait for it."""

    task: asyncio.Task
    waiters: int = 0


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()[:16]
