"""Monte Carlo Tree Search over support strategies (section 3.1), started from the gold dialogue."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from cso_lab.core.records import Dialogue, Scores
from cso_lab.search.idle_slots import IdleSlots
from cso_lab.search.prefetch import Prefetcher
from cso_lab.search.rollout import Expansion, Simulator, until_supporter
from cso_lab.search.tree import Node, Tree


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

    What an iteration asks its roles depends on the leaf alone, not on Q or N: `evaluate_leaf` asks, `apply` changes the tree.

    Stop: never before `min_iterations` and `min_ends`, always at `max_iterations` or `max_ends`.
    `speculation`: likely next leaves worked on ahead of time, at most so many at once; changes no tree (see `Prefetcher`).
    `leaf_batch_size`: above 1, so many leaves are selected with virtual loss and worked on at once. Faster, and another search:
    its trees depend on the number, though never on the order of answers.
    """

    c: float
    min_iterations: int
    max_iterations: int
    min_ends: int
    max_ends: int
    speculation: int = 0
    leaf_batch_size: int = 1

    @cached_property
    def idle_slots(self) -> IdleSlots:
        """For work ahead of time, shared by all dialogues."""
        return IdleSlots(self.roles)

    async def search(self, dialogue: Dialogue, on_iteration: Callable[[Tree, int], None] = lambda tree, done: None) -> Tree:
        """Grow `dialogue` into a tree; `on_iteration` hears of every finished iteration."""
        tree = await self.init_from_gold(dialogue)
        iteration = 0
        async with Prefetcher(self, dialogue, tree) as ahead:
            while left := self._left(tree, iteration):
                leaves = self._next_leaves(tree, min(self.leaf_batch_size, left))
                for leaf, outcome in zip(leaves, await ahead.outcomes(leaves, left), strict=True):
                    if self.finished(tree, iteration):
                        break
                    self.apply(tree, leaf, outcome)
                    iteration += 1
                    on_iteration(tree, iteration)
        return tree

    def finished(self, tree: Tree, iteration: int) -> bool:
        """The stop rule. Looks only; expands nothing."""
        return self._left(tree, iteration) == 0

    def _left(self, tree: Tree, iteration: int) -> int:
        """How many iterations the stop rule leaves, as long as no further end is found."""
        ends = sum(1 for _ in tree.ends())
        if ends >= self.max_ends:
            return 0
        return max(0, (self.min_iterations if ends >= self.min_ends else self.max_iterations) - iteration)

    def _next_leaves(self, tree: Tree, most: int) -> list[Node]:
        """The next leaf, or up to `most` different ones with virtual loss: one that is chosen counts as a visit of the worst
        reward until the wave is complete, so that the others are looked for elsewhere. Changes nothing."""
        leaves, before = [], []
        while len(leaves) < most and (leaf := tree.select(self.c)) not in leaves:
            leaves.append(leaf)
            before += [(node, node.q, node.n) for node in leaf.path()]
            leaf.backpropagate(self.reward.worst)
        for node, q, n in reversed(before):
            node.q, node.n = q, n
        return leaves

    def known(self, leaf: Node) -> Outcome | None:
        """The outcome of a leaf that nobody need be asked about: an end that was scored before."""
        return Outcome(reward=self.reward(leaf.scores), scores=leaf.scores) if leaf.end and leaf.scores else None

    async def evaluate_leaf(self, dialogue: Dialogue, leaf: Node) -> Outcome:
        """Expansion and simulation (3.1.3, 3.1.4) from `leaf`: everything that is asked in one iteration."""
        if known := self.known(leaf):
            return known
        path_key = leaf.path_key
        if leaf.end:
            scores = await self.roles.judge(dialogue, until_supporter(leaf.history()), self.sample_key(path_key))
            return Outcome(reward=self.reward(scores), scores=scores)

        history, expansion = leaf.history(), None
        if not leaf.expanded:
            history, expansion = await self.expand(dialogue, leaf.parent.history(), leaf.strategy, path_key)
            if expansion.seeker.end:
                scores = await self.roles.judge(dialogue, until_supporter(history), self.sample_key(path_key))
                return Outcome(reward=self.reward(scores), expansion=expansion, scores=scores)

        priors = self.priors(await self.roles.strategist(dialogue, history, self.sample_key(path_key)))
        best = max(priors, key=priors.get)
        path_key = f"{path_key}.{best}"
        child, scores = await self.simulate(dialogue, history, best, path_key)
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
