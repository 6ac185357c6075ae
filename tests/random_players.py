"""Players whose answers look random and are not, and an event loop whose waiting takes no time."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, SeekerReply, Turn
from cso_lab.core.strategies import StrategySet

FIVE = StrategySet("five", dict.fromkeys("ABCDE", "what it does"))


def gold_dialogue(id: str, rounds: int = 4) -> Dialogue:
    turns = (Turn(SEEKER, f"k{i}") if i % 2 == 0 else Turn(SUPPORTER, f"s{i}", "ABCDE"[i % 5]) for i in range(2 * rounds))
    return Dialogue(id, "scene", "situation", tuple(turns))


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next thing that is due. `time()` tells how long everything would have taken."""

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
        return self._now


def run(coroutine):
    """(what `coroutine` returns, the seconds it would have taken)."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(coroutine), runner.get_loop().time()


@dataclass
class RandomPlayers:
    """What they answer is a function of the question and its draw alone; how long they take is drawn by `pace`, around a second.

    At most `slots` questions are under way, in the order in which they were asked. `asked` lists (role, texts so far, strategy,
    draw); those in `fails` raise their error. `spares` says whether the players tell how many slots are idle.
    """

    slots: int = 8
    pace: random.Random = field(default_factory=lambda: random.Random(0))
    fails: dict[tuple, Exception] = field(default_factory=dict)
    asked: list[tuple] = field(default_factory=list)

    def __post_init__(self):
        self._free, self._open = asyncio.Semaphore(self.slots), 0

    @property
    def idle(self) -> int:
        return max(0, self.slots - self._open)

    async def seeker(self, dialogue: Dialogue, history: Sequence[Turn], draw: str) -> SeekerReply:
        chance = await self._chance("seeker", dialogue, history, draw)
        end = chance.random() < 0.12
        return SeekerReply(None if end and chance.random() < 0.3 else f"k{chance.random():.6f}", end)

    async def supporter(self, dialogue: Dialogue, history: Sequence[Turn], strategy: str, draw: str) -> str:
        return f"s{(await self._chance('supporter', dialogue, history, draw, strategy)).random():.6f}"

    async def strategist(self, dialogue: Dialogue, history: Sequence[Turn], draw: str) -> dict[str, int]:
        chance = await self._chance("strategist", dialogue, history, draw)
        return {name: chance.randint(0, 10) for name in FIVE.names}

    async def judge(self, dialogue: Dialogue, history: Sequence[Turn], draw: str) -> dict[str, int]:
        chance = await self._chance("judge", dialogue, history, draw)
        return {criterion: chance.randint(1, 4) for criterion in "EIHS"}

    async def _chance(self, role, dialogue, history, draw, strategy=None) -> random.Random:
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
