"""Monte Carlo Tree Search over support strategies (section 3.1), started from the gold dialogue."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from cso_lab.core.records import Dialogue
from cso_lab.search.low_priority import LowPriorityQueue
from cso_lab.search.outcome import Outcome
from cso_lab.search.prefetch import Prefetcher
from cso_lab.search.rollout import Simulator, until_supporter
from cso_lab.search.tree import Node, Tree


@dataclass(frozen=True, kw_only=True)
class MCTS(Simulator):
    """The search of section 3.1: select, expand, simulate and backpropagate until the stop rule holds.

    `evaluate_leaf` asks the roles and `apply` changes the tree. What is asked depends on the leaf alone, not on Q or N.

    `c`: exploration constant of eq. 1. The search stops at `min_iterations` if there are `min_ends` end nodes, and always at
    `max_iterations` or `max_ends`.
    `speculation`: how many likely next leaves may be evaluated in advance at once; it changes no tree (see `Prefetcher`).
    `leaf_batch_size`: if above 1, that many leaves are selected with virtual loss and evaluated at once. This is faster, but another
    search: the trees depend on the batch size, though never on the order of replies.
    """

    c: float
    min_iterations: int
    max_iterations: int
    min_ends: int
    max_ends: int
    speculation: int = 0
    leaf_batch_size: int = 1

    @cached_property
    def low_priority_queue(self) -> LowPriorityQueue:
        """The queue for prefetched questions, shared by all dialogues."""
        return LowPriorityQueue(self.roles)

    async def search(
        self, dialogue: Dialogue, on_iteration: Callable[[Tree, int], None] = lambda tree, iteration: None
    ) -> Tree:
        """Returns the tree of `dialogue`; `on_iteration` is called with the tree and the number of each finished iteration."""
        tree = await self.init_from_gold(dialogue)
        iteration = 0
        async with Prefetcher(self, dialogue, tree) as prefetcher:
            while remaining := self.remaining_iterations(tree, iteration):
                leaves = self.select_batch(tree, min(self.leaf_batch_size, remaining))
                for leaf, outcome in zip(leaves, await prefetcher.outcomes(leaves, remaining), strict=True):
                    if self.finished(tree, iteration):
                        break
                    self.apply(tree, leaf, outcome)
                    iteration += 1
                    on_iteration(tree, iteration)
        return tree

    def finished(self, tree: Tree, iteration: int) -> bool:
        """Returns whether the search stops after `iteration` iterations. Does not change the tree."""
        return self.remaining_iterations(tree, iteration) == 0

    def remaining_iterations(self, tree: Tree, iteration: int) -> int:
        """Returns how many iterations are left by the stop rule if no further end node is found."""
        ends = sum(1 for _ in tree.ends())
        if ends >= self.max_ends:
            return 0
        return max(0, (self.min_iterations if ends >= self.min_ends else self.max_iterations) - iteration)

    def select_batch(self, tree: Tree, size: int) -> list[Node]:
        """Returns up to `size` different leaves, selected one after another with virtual loss. Does not change the tree.

        Until the batch is complete, a selected leaf counts as visited with the worst reward, so that the next selection descends
        elsewhere. The batch ends early when a leaf is selected again.
        """
        leaves, saved = [], []
        while len(leaves) < size and (leaf := tree.select(self.c)) not in leaves:
            leaves.append(leaf)
            saved += [(node, node.q, node.n) for node in leaf.path()]
            leaf.backpropagate(self.reward.worst)
        for node, q, n in reversed(saved):
            node.q, node.n = q, n
        return leaves

    def known_outcome(self, leaf: Node) -> Outcome | None:
        """Returns the outcome of a leaf that needs no questions, an end that was scored before; else None."""
        return Outcome(reward=self.reward(leaf.scores), scores=leaf.scores) if leaf.end and leaf.scores else None

    async def evaluate_leaf(self, dialogue: Dialogue, leaf: Node) -> Outcome:
        """Returns the outcome of expansion and simulation from `leaf` (3.1.3, 3.1.4): all questions of one iteration."""
        if outcome := self.known_outcome(leaf):
            return outcome
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
        """Writes an outcome into the tree and backpropagates its reward (3.1.5)."""
        if outcome.expansion:
            outcome.expansion.apply_to(leaf)
        if outcome.scores:
            leaf.scores = outcome.scores
        if outcome.priors is None:
            leaf.backpropagate(outcome.reward)
            return
        children = {strategy: tree.add(leaf, strategy, prior) for strategy, prior in outcome.priors.items()}
        best = max(children.values(), key=lambda node: node.prior)
        outcome.child.apply_to(best)
        best.scores = outcome.child_scores
        best.backpropagate(outcome.reward)
