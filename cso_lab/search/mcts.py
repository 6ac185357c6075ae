"""Monte Carlo Tree Search over support strategies (section 3.1), started from the gold dialogue."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from cso_lab.dialogue import SEEKER, SUPPORTER, Dialogue, Turn
from cso_lab.search.paths import dispreferred, valid_paths
from cso_lab.search.tree import Node, Scores, Tree
from cso_lab.strategies import StrategySet

History = tuple[Turn, ...]


@dataclass(frozen=True)
class SeekerReply:
    """What the seeker said; `text` is None when it only ended the dialogue."""

    text: str | None
    end: bool


class Roles(Protocol):
    """The four players of appendix A. `draw` tells repeated questions about one state apart (see `MCTS.memory`)."""

    async def seeker(self, dialogue: Dialogue, history: History, draw: str) -> SeekerReply: ...
    async def supporter(self, dialogue: Dialogue, history: History, strategy: str, draw: str) -> str: ...
    async def strategist(self, dialogue: Dialogue, history: History, draw: str) -> Mapping[str, int]: ...
    async def judge(self, dialogue: Dialogue, history: History, draw: str) -> Scores: ...


@dataclass(frozen=True)
class Expansion:
    """The two utterances that turn an unexpanded node into an expanded one."""

    supporter: str
    seeker: SeekerReply


@dataclass(frozen=True)
class Outcome:
    """All that working on one leaf found out, before any of it is applied to the tree."""

    reward: float
    expansion: Expansion | None = None  # of the leaf, when it was unexpanded
    scores: Scores | None = None  # of the leaf's own turn, when the leaf is an end
    priors: Mapping[str, float] | None = None  # of its new children
    child: Expansion | None = None  # of the child the simulation starts from
    child_scores: Scores | None = None


@dataclass(frozen=True, kw_only=True)
class MCTS:
    """The search of section 3.1. `search` grows one dialogue into a tree.

    What an iteration asks its roles depends on the leaf alone, not on Q or N: `work` asks, `apply` changes the tree.

    Stop: never before `min_iterations` and `min_ends`, always at `max_iterations` or `max_ends`.
    `memory`: one state of a dialogue has one answer within a tree; otherwise every question is asked afresh.
    """

    roles: Roles
    reward: Callable[[Scores], float]
    strategies: StrategySet
    c: float
    prior_temperature: float
    gold_visits: int
    gold_prior: float
    rollout_rounds: int
    min_iterations: int
    max_iterations: int
    min_ends: int
    max_ends: int
    memory: bool

    async def search(self, dialogue: Dialogue, on_iteration: Callable[[Tree, int], None] = lambda tree, done: None) -> Tree:
        """Grow `dialogue` into a tree; `on_iteration` hears of every finished iteration."""
        tree = await self.plant(dialogue)
        iteration = 0
        while not self.finished(tree, iteration):
            leaf = tree.select(self.c)
            self.apply(tree, leaf, await self.work(dialogue, leaf))
            iteration += 1
            on_iteration(tree, iteration)
        return tree

    def finished(self, tree: Tree, iteration: int) -> bool:
        """The stop rule. Looks only; expands nothing."""
        ends = sum(1 for _ in tree.ends())
        if iteration >= self.max_iterations or ends >= self.max_ends:
            return True
        return iteration >= self.min_iterations and ends >= self.min_ends

    async def plant(self, dialogue: Dialogue) -> Tree:
        """The gold dialogue as the first path, with every other scored strategy as an unexpanded sibling.

        A gold node is expanded, with N = `gold_visits` and the Q of a perfect turn. Scorings of its turns are independent of
        one another; each is shown the history that really precedes the turn.
        """
        tree = Tree(dialogue.id, dialogue.scene, dialogue.description)
        gold = {"q": self.reward.best, "n": self.gold_visits, "gold": True}
        turns = list(dialogue.turns)
        opening = turns.pop(0) if turns[0].speaker == SUPPORTER else None
        node = tree.add(
            None, opening and opening.strategy, 1.0, supporter=opening and opening.text, seeker=turns.pop(0).text, **gold
        )
        supporter_turns = turns[0::2]
        answers = [turn.text for turn in turns[1::2]] + [None] * (len(turns) % 2)
        histories = [dialogue.turns[: i + (2 if opening else 1)] for i in range(0, len(turns), 2)]
        scored = await _gather(
            self.roles.strategist(dialogue, history, self._draw(f"gold.{i}")) for i, history in enumerate(histories)
        )
        for i, (turn, answer, scores) in enumerate(zip(supporter_turns, answers, scored, strict=True)):
            expansion = {"supporter": turn.text, "seeker": answer, "end": i == len(supporter_turns) - 1, **gold}
            children = [
                tree.add(node, strategy, prior, **(expansion if strategy == turn.strategy else {}))
                for strategy, prior in self._gold_priors(scores, turn.strategy).items()
            ]
            node = next(child for child in children if child.gold)
        return tree

    async def work(self, dialogue: Dialogue, leaf: Node) -> Outcome:
        """Expansion and simulation (3.1.3, 3.1.4) from `leaf`: everything that is asked in one iteration."""
        place = _place(leaf)
        if leaf.end:
            scores = leaf.scores or await self.roles.judge(dialogue, _until_supporter(leaf.history()), self._draw(place))
            return Outcome(reward=self.reward(scores), scores=scores)

        history, expansion = leaf.history(), None
        if not leaf.expanded:
            history, expansion = await self._expand(dialogue, leaf.parent.history(), leaf.strategy, place)
            if expansion.seeker.end:
                scores = await self.roles.judge(dialogue, _until_supporter(history), self._draw(place))
                return Outcome(reward=self.reward(scores), expansion=expansion, scores=scores)

        priors = self._priors(await self.roles.strategist(dialogue, history, self._draw(place)))
        best = max(priors, key=priors.get)
        place = f"{place}.{best}"
        child, scores = await self._simulate(dialogue, history, best, place)
        reward = self._mean_reward(scores)
        return Outcome(reward=reward, expansion=expansion, priors=priors, child=child, child_scores=scores[0])

    async def extend(self, dialogue: Dialogue, tree: Tree, theta: float, min_end_visits: int) -> None:
        """Expand and score the unexpanded siblings of every preferred turn without a dispreferred one (not in the paper).

        A sibling's Q becomes the reward of one simulation from it; its N stays 0: the search's own counts do not change.
        """
        paths = valid_paths(tree, theta, min_end_visits)
        preferred = {node.id for path in paths for node in path}
        lacking = [
            node for node in tree.nodes if node.parent and node.id in preferred and not dispreferred(node, theta, preferred)
        ]
        siblings = {s.id: s for node in lacking for s in node.parent.children if not s.expanded}.values()
        found = await _gather(self._simulate(dialogue, s.parent.history(), s.strategy, _place(s)) for s in siblings)
        for sibling, (expansion, scores) in zip(siblings, found, strict=True):
            _set_expansion(sibling, expansion)
            sibling.scores, sibling.q = scores[0], self._mean_reward(scores)

    async def _simulate(self, dialogue, history: History, strategy: str, place: str) -> tuple[Expansion, list[Scores]]:
        """One simulation from a turn in `strategy`: that turn, and the scores of it and of every simulated turn after it."""
        history, expansion = await self._expand(dialogue, history, strategy, place)
        async with _together() as judging:
            judgements = [self._judge(judging, dialogue, _until_supporter(history), place)]
            if not expansion.seeker.end:
                await self._roll_out(dialogue, history, place, judging, judgements)
        return expansion, [judgement.result() for judgement in judgements]

    def _mean_reward(self, scores: Sequence[Scores]) -> float:
        """Eq. 3: the mean over a simulation's first turn and every simulated turn after it."""
        return sum(map(self.reward, scores)) / len(scores)

    def apply(self, tree: Tree, leaf: Node, outcome: Outcome) -> None:
        """Write an outcome into the tree and backpropagate it (3.1.5)."""
        if outcome.expansion:
            _set_expansion(leaf, outcome.expansion)
        if outcome.scores:
            leaf.scores = outcome.scores
        if outcome.priors is None:
            leaf.backpropagate(outcome.reward)
            return
        children = {strategy: tree.add(leaf, strategy, prior) for strategy, prior in outcome.priors.items()}
        best = max(children.values(), key=lambda node: node.prior)
        _set_expansion(best, outcome.child)
        best.scores = outcome.child_scores
        best.backpropagate(outcome.reward)

    async def _expand(self, dialogue: Dialogue, history: History, strategy: str, place: str) -> tuple[History, Expansion]:
        draw = self._draw(place)
        supporter = await self.roles.supporter(dialogue, history, strategy, draw)
        history += (Turn(SUPPORTER, supporter, strategy),)
        seeker = await self.roles.seeker(dialogue, history, draw)
        if seeker.text is not None:
            history += (Turn(SEEKER, seeker.text),)
        return history, Expansion(supporter, seeker)

    async def _roll_out(self, dialogue, history: History, place: str, judging: asyncio.TaskGroup, judgements: list) -> None:
        """Greedy simulation: the best-scored strategy at every round. A turn is judged as soon as it is there.

        What the seeker would answer to the last round is read by nobody, so it is not asked.
        """
        for i in range(1, self.rollout_rounds + 1):
            draw = self._draw(f"{place}+{i}")
            priors = self._priors(await self.roles.strategist(dialogue, history, draw))
            strategy = max(priors, key=priors.get)
            history += (Turn(SUPPORTER, await self.roles.supporter(dialogue, history, strategy, draw), strategy),)
            judgements.append(self._judge(judging, dialogue, history, f"{place}+{i}"))
            if i == self.rollout_rounds:
                return
            seeker = await self.roles.seeker(dialogue, history, draw)
            if seeker.end:
                return
            history += (Turn(SEEKER, seeker.text),)

    def _judge(self, judging: asyncio.TaskGroup, dialogue: Dialogue, history: History, place: str) -> asyncio.Task:
        return judging.create_task(self.roles.judge(dialogue, history, self._draw(place)))

    def _draw(self, place: str) -> str:
        """Which answer about a state is meant: the one remembered, or the one for this place of the tree and no other."""
        return "" if self.memory else place

    def _priors(self, scores: Mapping[str, int]) -> dict[str, float]:
        """P of eq. 1: softmax over the scores of siblings, exp(score / temperature), in the strategies' own order."""
        weights = {name: math.exp(scores[name] / self.prior_temperature) for name in self.strategies.names if name in scores}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def _gold_priors(self, scores: Mapping[str, int], gold: str) -> dict[str, float]:
        """Priors beside a gold turn; a gold strategy nobody scored joins with `gold_prior` and the others shrink by it."""
        priors = self._priors(scores)
        if gold not in priors:
            priors = {name: prior * (1 - self.gold_prior) for name, prior in priors.items()} | {gold: self.gold_prior}
        return priors


def _set_expansion(node: Node, expansion: Expansion) -> None:
    node.supporter, node.seeker, node.end = expansion.supporter, expansion.seeker.text, expansion.seeker.end


def _place(node: Node) -> str:
    """A node's strategies from the root down: what it is called before it has a number, whatever the order of the search."""
    return ".".join(step.strategy for step in node.path()[1:])


def _until_supporter(history: Sequence[Turn]) -> History:
    """The history up to the last supporter turn: what the judge is shown."""
    return tuple(history[:-1] if history[-1].speaker == SEEKER else history)


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """A group of questions. When one fails, the others are cancelled, not paid for, and its error comes out as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed.exceptions[0].__cause__


async def _gather(questions: Iterable[Awaitable]) -> list:
    """All answers in order."""
    async with _together() as group:
        tasks = [group.create_task(question) for question in questions]
    return [task.result() for task in tasks]
