"""Role players with pseudo-random answers, and an event loop that does not wait in real time."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, SeekerReply, Turn
from cso_lab.core.strategies import StrategySet

FIVE = StrategySet("five", dict.fromkeys("ABCDE", "what it does"))


def gold_dialogue(id: str, rounds: int = 4) -> Dialogue:
    """Returns a dialogue of `rounds` seeker and supporter turns."""
    turns = (Turn(SEEKER, f"k{i}") if i % 2 == 0 else Turn(SUPPORTER, f"s{i}", "ABCDE"[i % 5]) for i in range(2 * rounds))
    return Dialogue(id, "scene", "situation", tuple(turns))


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next scheduled event. `time()` is the number of seconds it would have taken."""

    def __init__(self):
        super().__init__()
        self._now = 0.0
        select = self._selector.select

        def jump(timeout):
            events = select(0)
            if timeout and not events:
                self._now += timeout
            return events

        self._selector.select = jump

    def time(self) -> float:
        """Returns the simulated time in seconds."""
        return self._now


def run(coroutine):
    """Returns (the result of `coroutine`, the seconds it would have taken)."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(coroutine), runner.get_loop().time()


@dataclass
class RandomPlayers:
    """The four roles. An answer is a function of the question and its draw; it takes 0.5 to 1.5 s, drawn from `pace`.

    At most `slots` questions are answered at a time, first come, first served. `asked` lists the questions as (role, dialogue, texts so
    far, strategy, draw); those in `fails` raise their error.
    """

    slots: int = 8
    pace: random.Random = field(default_factory=lambda: random.Random(0))
    fails: dict[tuple, Exception] = field(default_factory=dict)
    asked: list[tuple] = field(default_factory=list)

    def __post_init__(self):
        self._free, self._open = asyncio.Semaphore(self.slots), 0

    @property
    def idle(self) -> int:
        """The number of free slots."""
        return max(0, self.slots - self._open)

    async def seeker(self, dialogue: Dialogue, history: Sequence[Turn], draw: str) -> SeekerReply:
        """Returns a seeker turn that ends the dialogue with probability 0.12."""
        rng = await self._rng("seeker", dialogue, history, draw)
        end = rng.random() < 0.12
        return SeekerReply(None if end and rng.random() < 0.3 else f"k{rng.random():.6f}", end)

    async def supporter(self, dialogue: Dialogue, history: Sequence[Turn], strategy: str, draw: str) -> str:
        """Returns a supporter turn."""
        return f"s{(await self._rng('supporter', dialogue, history, draw, strategy)).random():.6f}"

    async def strategist(self, dialogue: Dialogue, history: Sequence[Turn], draw: str) -> dict[str, int]:
        """Returns a score from 0 to 10 for each of the FIVE strategies."""
        rng = await self._rng("strategist", dialogue, history, draw)
        return {name: rng.randint(0, 10) for name in FIVE.names}

    async def judge(self, dialogue: Dialogue, history: Sequence[Turn], draw: str) -> dict[str, int]:
        """Returns a score from 1 to 4 for each criterion."""
        rng = await self._rng("judge", dialogue, history, draw)
        return {criterion: rng.randint(1, 4) for criterion in "EIHS"}

    async def _rng(self, role, dialogue, history, draw, strategy=None) -> random.Random:
        question = (role, dialogue.id, tuple(turn.text for turn in history), strategy, draw)
        self.asked.append(question)
        self._open += 1
        try:
            async with self._free:
                await asyncio.sleep(self.pace.uniform(0.5, 1.5))
        finally:
            self._open -= 1
        if question in self.fails:
            raise self.fails[question]
        return random.Random(repr(question))
