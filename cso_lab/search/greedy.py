"""A baseline without tree search: from every gold turn, the best-scored other strategy is followed greedily."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cso_lab.core.records import Dialogue, Scores
from cso_lab.core.task_group import gather, task_group
from cso_lab.search.mcts import MCTS
from cso_lab.search.rollout import Expansion
from cso_lab.search.tree import Node, Tree


@dataclass(frozen=True)
class Step:
    """One turn of a greedy path; `priors` are those of the turn after it, None if the path ends."""

    expansion: Expansion
    scores: Scores
    priors: Mapping[str, float] | None


class Greedy(MCTS):
    """Tries the best-scored other strategy beside each gold turn once, and follows it with the best-scored strategy of every round,
    for `rollout_rounds` rounds or until the seeker ends the dialogue. One such path counts as an iteration.

    A node on a greedy path has N = 1, and Q is the mean reward from its turn to the end of the path; gold nodes keep their values. With
    `preferences.min_end_visits` above 1 only the gold path is valid, so its turns are preferred to the greedy ones.
    """

    async def search(
        self, dialogue: Dialogue, on_iteration: Callable[[Tree, int], None] = lambda tree, iteration: None
    ) -> Tree:
        """Returns `dialogue` as a tree with one greedy path beside each gold turn; all paths are followed at once."""
        tree = await self.init_from_gold(dialogue)
        siblings_of_gold = [[child for child in node.children if not child.gold] for node in tree.nodes if node.gold]
        starts = [max(siblings, key=lambda node: node.prior) for siblings in siblings_of_gold if siblings]
        paths = await gather(self._follow(dialogue, start) for start in starts)
        for iteration, (start, steps) in enumerate(zip(starts, paths, strict=True), 1):
            self._add_path(tree, start, steps)
            on_iteration(tree, iteration)
        return tree

    async def _follow(self, dialogue: Dialogue, start: Node) -> list[Step]:
        """Returns the turns of the greedy path from `start`. Each turn is judged while the path continues."""
        history, strategy, path_key = start.parent.history(), start.strategy, start.path_key
        turns = []
        async with task_group() as judging:
            for i in range(1 + self.rollout_rounds):
                history, expansion = await self.expand(dialogue, history, strategy, path_key)
                judgement, priors = self.start_judging(judging, dialogue, history, path_key), None
                if i < self.rollout_rounds and not expansion.seeker.end:
                    priors = self.priors(await self.roles.strategist(dialogue, history, self.sample_key(path_key)))
                turns.append((expansion, judgement, priors))
                if priors is None:
                    break
                strategy = max(priors, key=priors.get)
                path_key = f"{path_key}.{strategy}"
        return [Step(expansion, judgement.result(), priors) for expansion, judgement, priors in turns]

    def _add_path(self, tree: Tree, node: Node, steps: list[Step]) -> None:
        scores = [step.scores for step in steps]
        for i, step in enumerate(steps):
            step.expansion.apply_to(node)
            node.scores, node.q, node.n = step.scores, self.mean_reward(scores[i:]), 1
            if step.priors:
                node = max((tree.add(node, *child) for child in step.priors.items()), key=lambda child: child.prior)
