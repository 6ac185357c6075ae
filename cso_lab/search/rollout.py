"""Playing dialogues on: the gold dialogue as a tree's first path (section 3.1.1), single turns, and simulations (3.1.4)."""

import asyncio
import math
from collections.abc import Mapping, Sequence
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

    def write(self, node: Node) -> None:
        node.supporter, node.seeker, node.end = self.supporter, self.seeker.text, self.seeker.end


@dataclass(frozen=True, kw_only=True)
class Simulator:
    """What every search over strategies is made of: planting, single turns, simulations, the extension pass.

    `gold_visits`, `gold_prior`: N of a gold node, and the prior of a gold strategy that nobody scored. `rollout_rounds`: simulated
    rounds after the turn a simulation starts from.
    `cache_replies`: one state of a dialogue has one answer within a tree; otherwise every question is asked afresh.
    """

    roles: Roles
    reward: Reward
    strategies: StrategySet
    prior_temperature: float
    gold_visits: int
    gold_prior: float
    rollout_rounds: int
    cache_replies: bool

    async def init_from_gold(self, dialogue: Dialogue) -> Tree:
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
        scored = await gather(
            self.roles.strategist(dialogue, history, self.sample_key(f"gold.{i}")) for i, history in enumerate(histories)
        )
        for i, (turn, answer, scores) in enumerate(zip(supporter_turns, answers, scored, strict=True)):
            expansion = {"supporter": turn.text, "seeker": answer, "end": i == len(supporter_turns) - 1, **gold}
            children = [
                tree.add(node, strategy, prior, **(expansion if strategy == turn.strategy else {}))
                for strategy, prior in self._gold_priors(scores, turn.strategy).items()
            ]
            node = next(child for child in children if child.gold)
        return tree

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
        found = await gather(self.simulate(dialogue, s.parent.history(), s.strategy, s.path_key) for s in siblings)
        for sibling, (expansion, scores) in zip(siblings, found, strict=True):
            expansion.write(sibling)
            sibling.scores, sibling.q = scores[0], self.mean_reward(scores)

    async def expand(self, dialogue: Dialogue, history: History, strategy: str, path_key: str) -> tuple[History, Expansion]:
        """One turn in `strategy` and the seeker's answer, and the history with both."""
        sample_key = self.sample_key(path_key)
        supporter = await self.roles.supporter(dialogue, history, strategy, sample_key)
        history += (Turn(SUPPORTER, supporter, strategy),)
        seeker = await self.roles.seeker(dialogue, history, sample_key)
        if seeker.text is not None:
            history += (Turn(SEEKER, seeker.text),)
        return history, Expansion(supporter, seeker)

    async def simulate(self, dialogue, history: History, strategy: str, path_key: str) -> tuple[Expansion, list[Scores]]:
        """One simulation from a turn in `strategy`: that turn, and the scores of it and of every simulated turn after it."""
        history, expansion = await self.expand(dialogue, history, strategy, path_key)
        async with task_group() as judging:
            judgements = [self.judged(judging, dialogue, history, path_key)]
            if not expansion.seeker.end:
                await self._roll_out(dialogue, history, path_key, judging, judgements)
        return expansion, [judgement.result() for judgement in judgements]

    def mean_reward(self, scores: Sequence[Scores]) -> float:
        """Eq. 3: the mean over a simulation's first turn and every simulated turn after it."""
        return sum(map(self.reward, scores)) / len(scores)

    async def _roll_out(self, dialogue, history: History, path_key: str, judging: asyncio.TaskGroup, judgements: list) -> None:
        """Greedy simulation: the best-scored strategy at every round. A turn is judged as soon as it is there.

        What the seeker would answer to the last round is read by nobody, so it is not asked.
        """
        for i in range(1, self.rollout_rounds + 1):
            sample_key = self.sample_key(f"{path_key}+{i}")
            priors = self.priors(await self.roles.strategist(dialogue, history, sample_key))
            strategy = max(priors, key=priors.get)
            history += (Turn(SUPPORTER, await self.roles.supporter(dialogue, history, strategy, sample_key), strategy),)
            judgements.append(self.judged(judging, dialogue, history, f"{path_key}+{i}"))
            if i == self.rollout_rounds:
                return
            seeker = await self.roles.seeker(dialogue, history, sample_key)
            if seeker.end:
                return
            history += (Turn(SEEKER, seeker.text),)

    def judged(self, judging: asyncio.TaskGroup, dialogue: Dialogue, history: History, path_key: str) -> "asyncio.Task[Scores]":
        """The judge's scores of the last supporter turn, asked for in a group of questions."""
        return judging.create_task(self.roles.judge(dialogue, until_supporter(history), self.sample_key(path_key)))

    def sample_key(self, path_key: str) -> str:
        """Which answer about a state is meant: the one remembered, or the one for this place in the tree and no other."""
        return "" if self.cache_replies else path_key

    def priors(self, scores: Mapping[str, int]) -> dict[str, float]:
        """P of eq. 1: softmax over the scores of siblings, exp(score / temperature), in the strategies' own order."""
        weights = {name: math.exp(scores[name] / self.prior_temperature) for name in self.strategies.names if name in scores}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def _gold_priors(self, scores: Mapping[str, int], gold: str) -> dict[str, float]:
        """Priors beside a gold turn; a gold strategy nobody scored joins with `gold_prior` and the others shrink by it."""
        priors = self.priors(scores)
        if gold not in priors:
            priors = {name: prior * (1 - self.gold_prior) for name, prior in priors.items()} | {gold: self.gold_prior}
        return priors


def until_supporter(history: Sequence[Turn]) -> History:
    """The history up to the last supporter turn: what the judge is shown."""
    return tuple(history[:-1] if history[-1].speaker == SEEKER else history)
