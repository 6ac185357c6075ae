"""A search without a tree search: what the best-scored strategy leads to, beside every gold turn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cso_lab.core.records import Dialogue, Scores
from cso_lab.core.task_group import gather, task_group
from cso_lab.search.mcts import MCTS
from cso_lab.search.rollout import Expansion
from cso_lab.search.tree import Node, Tree


@dataclass(frozen=True)
class Step:
    """One turn of a followed path; `priors` are those of the turn after it, None where the path ends."""

    expansion: Expansion
    scores: Scores
    priors: Mapping[str, float] | None


class Greedy(MCTS):
    """Beside each gold turn, the best-scored other strategy is tried once and followed by the best-scored strategy of every
    round after it, for `rollout_rounds` rounds or to the end. An "iteration" is one such path.

    A node on a path has N = 1 and, for Q, the mean reward from its turn to the path's end; the gold path keeps its own. With
    `preferences.min_end_visits` above 1 only the gold path is valid, so its turns are preferred to those that were tried.
    """

    async def search(self, dialogue: Dialogue, on_iteration: Callable[[Tree, int], None] = lambda tree, done: None) -> Tree:
        """`dialogue` as a tree with one path beside each gold turn; all of them are followed at once."""
        tree = await self.init_from_gold(dialogue)
        others = [[child for child in node.children if not child.gold] for node in tree.nodes if node.gold]
        tried = [max(siblings, key=lambda node: node.prior) for siblings in others if siblings]
        for i, (node, steps) in enumerate(zip(tried, await gather(self._follow(dialogue, n) for n in tried), strict=True), 1):
            self._write(tree, node, steps)
            on_iteration(tree, i)
        return tree

    async def _follow(self, dialogue: Dialogue, node: Node) -> list[Step]:
        history, strategy, path_key = node.parent.history(), node.strategy, node.path_key
        turns = []
        async with task_group() as judging:
            for i in range(1 + self.rollout_rounds):
                history, expansion = await self.expand(dialogue, history, strategy, path_key)
                judgement, priors = self.judged(judging, dialogue, history, path_key), None
                if i < self.rollout_rounds and not expansion.seeker.end:
                    priors = self.priors(await self.roles.strategist(dialogue, history, self.sample_key(path_key)))
                turns.append((expansion, judgement, priors))
                if priors is None:
                    break
                strategy = max(priors, key=priors.get)
                path_key = f"{path_key}.{strategy}"
        return [Step(expansion, judgement.result(), priors) for expansion, judgement, priors in turns]

    def _write(self, tree: Tree, node: Node, steps: list[Step]) -> None:
        scores = [step.scores for step in steps]
        for i, step in enumerate(steps):
            step.expansion.write(node)
            node.scores, node.q, node.n = step.scores, self.mean_reward(scores[i:]), 1
            if step.priors:
                node = max((tree.add(node, *child) for child in step.priors.items()), key=lambda child: child.prior)
