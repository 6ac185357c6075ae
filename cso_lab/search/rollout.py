"""Continues dialogues: the gold dialogue as a tree's first path (section 3.1.1), single turns (3.1.3) and simulations (3.1.4)."""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Scores, SeekerReply, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.core.task_group import gather, task_group
from cso_lab.search.paths import dispreferred, valid_paths
from cso_lab.search.reward import Reward
from cso_lab.search.roles import History, Roles
from cso_lab.search.tree import Node, Tree


@dataclass(frozen=True)
class Expansion:
    """The two utterances that turn an unexpanded node into an expanded one."""

    supporter: str
    seeker: SeekerReply

    def apply_to(self, node: Node) -> None:
        """Writes both utterances into `node`."""
        node.supporter, node.seeker, node.end = self.supporter, self.seeker.text, self.seeker.end


@dataclass(frozen=True, kw_only=True)
class Simulator(ABC):
    """The parts that searches over strategies share: the first path, single turns, simulations and the extension pass.

    `prior_temperature`: of the softmax over the strategist's scores. `gold_visits`: N of a gold node. `gold_prior`: P of a gold strategy
    that the strategist did not score. `rollout_rounds`: simulated rounds after the turn that a simulation starts from.
    `cache_replies`: if true, a question about the same state has the same answer within a tree; else each is sampled anew.
    """

    roles: Roles
    reward: Reward
    strategies: StrategySet
    prior_temperature: float
    gold_visits: int
    gold_prior: float
    rollout_rounds: int
    cache_replies: bool

    @abstractmethod
    async def search(
        self, dialogue: Dialogue, on_iteration: Callable[[Tree, int], None] = lambda tree, iteration: None
    ) -> Tree:
        """Returns the tree of `dialogue`; each search has its own way."""

    async def init_from_gold(self, dialogue: Dialogue) -> Tree:
        """Returns a new tree: the gold dialogue is the first path, every other scored strategy an unexpanded sibling (section 3.1.1).

        Gold nodes are expanded, with N = `gold_visits` and the Q of a perfect turn; the last supporter turn is an end node. The
        strategist scores all gold turns at once, each after the history that precedes it.
        """
        tree = Tree(dialogue.id, dialogue.scene, dialogue.description)
        gold_fields = {"q": self.reward.best, "n": self.gold_visits, "gold": True}
        turns = list(dialogue.turns)
        opening = turns.pop(0) if turns[0].speaker == SUPPORTER else None
        node = tree.add(
            None, opening and opening.strategy, 1.0, supporter=opening and opening.text, seeker=turns.pop(0).text, **gold_fields
        )
        supporter_turns = turns[0::2]
        seeker_replies = [turn.text for turn in turns[1::2]] + [None] * (len(turns) % 2)
        histories = [dialogue.turns[: i + (2 if opening else 1)] for i in range(0, len(turns), 2)]
        scores_by_turn = await gather(
            self.roles.strategist(dialogue, history, self.sample_key(f"gold.{i}")) for i, history in enumerate(histories)
        )
        for i, (turn, reply, scores) in enumerate(zip(supporter_turns, seeker_replies, scores_by_turn, strict=True)):
            expansion = {"supporter": turn.text, "seeker": reply, "end": i == len(supporter_turns) - 1, **gold_fields}
            children = [
                tree.add(node, strategy, prior, **(expansion if strategy == turn.strategy else {}))
                for strategy, prior in self._gold_priors(scores, turn.strategy).items()
            ]
            node = next(child for child in children if child.gold)
        return tree

    async def extend(self, dialogue: Dialogue, tree: Tree, theta: float, min_end_visits: int) -> None:
        """Expands and scores the unexpanded siblings of every preferred turn that has no dispreferred sibling (not in the paper).

        A sibling's Q becomes the reward of one simulation from it. Its N stays 0, so that visit counts remain those of the search.
        """
        paths = valid_paths(tree, theta, min_end_visits)
        preferred = {node.id for path in paths for node in path}
        without_negatives = [
            node for node in tree.nodes if node.parent and node.id in preferred and not dispreferred(node, theta, preferred)
        ]
        siblings = {s.id: s for node in without_negatives for s in node.parent.children if not s.expanded}.values()
        simulations = await gather(self.simulate(dialogue, s.parent.history(), s.strategy, s.path_key) for s in siblings)
        for sibling, (expansion, scores) in zip(siblings, simulations, strict=True):
            expansion.apply_to(sibling)
            sibling.scores, sibling.q = scores[0], self.mean_reward(scores)

    async def expand(self, dialogue: Dialogue, history: History, strategy: str, path_key: str) -> tuple[History, Expansion]:
        """Returns (the history with one more supporter turn in `strategy` and the seeker's reply, these two as an Expansion)."""
        sample_key = self.sample_key(path_key)
        supporter = await self.roles.supporter(dialogue, history, strategy, sample_key)
        history += (Turn(SUPPORTER, supporter, strategy),)
        seeker = await self.roles.seeker(dialogue, history, sample_key)
        if seeker.text is not None:
            history += (Turn(SEEKER, seeker.text),)
        return history, Expansion(supporter, seeker)

    async def simulate(
        self, dialogue: Dialogue, history: History, strategy: str, path_key: str
    ) -> tuple[Expansion, list[Scores]]:
        """Returns one simulation (3.1.4): a first turn in `strategy`, and the judge's scores of it and of each simulated turn after it."""
        history, expansion = await self.expand(dialogue, history, strategy, path_key)
        async with task_group() as judging:
            judgements = [self.start_judging(judging, dialogue, history, path_key)]
            if not expansion.seeker.end:
                await self._roll_out(dialogue, history, path_key, judging, judgements)
        return expansion, [judgement.result() for judgement in judgements]

    def mean_reward(self, scores: Sequence[Scores]) -> float:
        """Returns the reward of a simulation (eq. 3): the mean over its first turn and the simulated turns after it."""
        return sum(map(self.reward, scores)) / len(scores)

    async def _roll_out(
        self,
        dialogue: Dialogue,
        history: History,
        path_key: str,
        judging: asyncio.TaskGroup,
        judgements: "list[asyncio.Task[Scores]]",
    ) -> None:
        """Simulates further rounds, each with its best-scored strategy, and adds a judging task for each turn to `judgements`.

        The seeker is not asked after the last round, since the reply would not be used.
        """
        for i in range(1, self.rollout_rounds + 1):
            sample_key = self.sample_key(f"{path_key}+{i}")
            priors = self.priors(await self.roles.strategist(dialogue, history, sample_key))
            strategy = max(priors, key=priors.get)
            history += (Turn(SUPPORTER, await self.roles.supporter(dialogue, history, strategy, sample_key), strategy),)
            judgements.append(self.start_judging(judging, dialogue, history, f"{path_key}+{i}"))
            if i == self.rollout_rounds:
                return
            seeker = await self.roles.seeker(dialogue, history, sample_key)
            if seeker.end:
                return
            history += (Turn(SEEKER, seeker.text),)

    def start_judging(
        self, judging: asyncio.TaskGroup, dialogue: Dialogue, history: History, path_key: str
    ) -> "asyncio.Task[Scores]":
        """Returns a task in the group `judging` that gets the judge's scores of the last supporter turn."""
        return judging.create_task(self.roles.judge(dialogue, until_supporter(history), self.sample_key(path_key)))

    def sample_key(self, path_key: str) -> str:
        """Returns the sample key of questions at a node: one for all nodes if replies are cached, else the node's own."""
        return "" if self.cache_replies else path_key

    def priors(self, scores: Mapping[str, int]) -> dict[str, float]:
        """Returns P of eq. 1 by strategy: the softmax of score / temperature over siblings, in the order of the strategy set."""
        weights = {name: math.exp(scores[name] / self.prior_temperature) for name in self.strategies.names if name in scores}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def _gold_priors(self, scores: Mapping[str, int], gold: str) -> dict[str, float]:
        """Returns the priors at a gold turn. An unscored gold strategy is added with `gold_prior`; the others shrink to sum to 1."""
        priors = self.priors(scores)
        if gold not in priors:
            priors = {name: prior * (1 - self.gold_prior) for name, prior in priors.items()} | {gold: self.gold_prior}
        return priors


def until_supporter(history: Sequence[Turn]) -> History:
    """Returns the history up to the last supporter turn, which is what the judge is shown."""
    return tuple(history[:-1] if history[-1].speaker == SEEKER else history)
