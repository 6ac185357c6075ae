"""Monte Carlo Tree Search over support strategies (section 3.1), started from the gold dialogue."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cso_lab.dialogue import Dialogue
from cso_lab.search.players import Roles, SeekerReply
from cso_lab.search.simulation import Expansion, Simulator, until_supporter
from cso_lab.search.tree import Node, Scores, Tree

__all__ = ["MCTS", "Outcome", "Roles", "SeekerReply"]


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
class MCTS(Simulator):
    """The search of section 3.1. `search` grows one dialogue into a tree.

    What an iteration asks its roles depends on the leaf alone, not on Q or N: `work` asks, `apply` changes the tree.

    Stop: never before `min_iterations` and `min_ends`, always at `max_iterations` or `max_ends`.
    """

    c: float
    min_iterations: int
    max_iterations: int
    min_ends: int
    max_ends: int

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

    async def work(self, dialogue: Dialogue, leaf: Node) -> Outcome:
        """Expansion and simulation (3.1.3, 3.1.4) from `leaf`: everything that is asked in one iteration."""
        place = leaf.place
        if leaf.end:
            scores = leaf.scores or await self.roles.judge(dialogue, until_supporter(leaf.history()), self.draw(place))
            return Outcome(reward=self.reward(scores), scores=scores)

        history, expansion = leaf.history(), None
        if not leaf.expanded:
            history, expansion = await self.expand(dialogue, leaf.parent.history(), leaf.strategy, place)
            if expansion.seeker.end:
                scores = await self.roles.judge(dialogue, until_supporter(history), self.draw(place))
                return Outcome(reward=self.reward(scores), expansion=expansion, scores=scores)

        priors = self.priors(await self.roles.strategist(dialogue, history, self.draw(place)))
        best = max(priors, key=priors.get)
        place = f"{place}.{best}"
        child, scores = await self.simulate(dialogue, history, best, place)
        reward = self.mean_reward(scores)
        return Outcome(reward=reward, expansion=expansion, priors=priors, child=child, child_scores=scores[0])

    def apply(self, tree: Tree, leaf: Node, outcome: Outcome) -> None:
        """Write an outcome into the tree and backpropagate it (3.1.5)."""
        if outcome.expansion:
            outcome.expansion.write(leaf)
        if outcome.scores:
            leaf.scores = outcome.scores
        if outcome.priors is None:
            leaf.backpropagate(outcome.reward)
            return
        children = {strategy: tree.add(leaf, strategy, prior) for strategy, prior in outcome.priors.items()}
        best = max(children.values(), key=lambda node: node.prior)
        outcome.child.write(best)
        best.scores = outcome.child_scores
        best.backpropagate(outcome.reward)
