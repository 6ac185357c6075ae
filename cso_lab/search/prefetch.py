"""Evaluates likely next leaves before the search selects them, without changing the resulting tree.

The outcome of evaluating a leaf depends on the leaf alone, not on Q or N. So it can be computed early and kept until the search selects
the leaf; if it never does, the only cost are the calls. Outcomes are applied in the order of the search itself.
"""

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cso_lab.core.records import Dialogue
from cso_lab.search.low_priority import LowPriorityQueue, LowPriorityRoles
from cso_lab.search.outcome import Outcome
from cso_lab.search.roles import Roles
from cso_lab.search.tree import Node, Tree

MAX_KEPT_RATIO = 2
"""Outcomes kept for leaves that were not selected yet, as a multiple of `speculation`. It bounds what is unused at the end."""


class LeafSearch(Protocol):
    """What the prefetcher uses of a search, a dataclass such as `MCTS`."""

    roles: Roles
    c: float
    speculation: int
    low_priority_queue: LowPriorityQueue

    def known_outcome(self, leaf: Node) -> Outcome | None:
        """Returns the outcome of a leaf that needs no questions; else None."""

    async def evaluate_leaf(self, dialogue: Dialogue, leaf: Node) -> Outcome:
        """Returns the outcome of expansion and simulation from `leaf`."""

    def apply(self, tree: Tree, leaf: Node, outcome: Outcome) -> None:
        """Writes an outcome into the tree and backpropagates its reward."""


class TreeOverlay(Tree):
    """A copy-on-read view of a tree, to continue the search in. Nodes are copied when visited; the tree itself does not change."""

    def __init__(self, tree: Tree):
        super().__init__(tree.id, tree.scene, tree.description)
        self.nodes.append(_copy(tree.root, None))

    def children_of(self, node: Node) -> list[Node]:
        """Returns the children of a copied node, which are copied first if they have not been."""
        if node.children and node.children[0].parent is not node:
            node.children = [_copy(child, node) for child in node.children]
        return node.children


def _copy(node: Node, parent: Node | None) -> Node:
    return dataclasses.replace(node, parent=parent, children=list(node.children))


@dataclass(frozen=True)
class Evaluation:
    """A running or finished evaluation of one leaf, and the role players it asks."""

    roles: LowPriorityRoles
    task: asyncio.Task[Outcome]

    @property
    def outcome(self) -> Outcome | None:
        """The outcome; None while the task runs, and if it failed (the error is raised only if the search needs the outcome)."""
        unavailable = not self.task.done() or self.task.cancelled() or self.task.exception()
        return None if unavailable else self.task.result()


class Prefetcher:
    """Provides the outcomes of leaves, some of them evaluated in advance. Leaving its `async with` cancels what is still running.

    Leaves are identified by their `path_key`, since a predicted leaf may exist in an overlay only, where it has no id of the tree.
    """

    def __init__(self, search: LeafSearch, dialogue: Dialogue, tree: Tree):
        self._search, self._dialogue, self._tree = search, dialogue, tree
        self._evaluations: dict[str, Evaluation] = {}  # by path_key, until the search has used the outcome
        self._slot: asyncio.Future | None = None  # done once a slot is idle, which allows another prediction
        self._predicted = False  # whether leaves were predicted since the last new outcome

    async def __aenter__(self) -> "Prefetcher":
        return self

    async def __aexit__(self, *_) -> None:
        running = [evaluation.task for evaluation in self._evaluations.values()] + ([self._slot] if self._slot else [])
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def outcomes(self, leaves: Sequence[Node], remaining: int) -> list[Outcome]:
        """Returns the outcomes of `leaves`, in order. Raises the first error of their evaluations.

        `remaining`: the largest number of iterations that the search may still make, those for `leaves` included.
        """
        evaluations = [self._evaluate(leaf) for leaf in leaves]
        for evaluation in evaluations:
            evaluation.roles.promote()
        self._predicted = False
        while not all(evaluation.task.done() and evaluation.outcome for evaluation in evaluations):
            await self._wait([evaluation.task for evaluation in evaluations], remaining)
            for evaluation in evaluations:
                if evaluation.task.done():
                    evaluation.task.result()  # raises its error as soon as there is one
        for leaf in leaves:
            del self._evaluations[leaf.path_key]
        return [evaluation.outcome for evaluation in evaluations]

    async def _wait(self, needed: Sequence[asyncio.Task], remaining: int) -> None:
        """Waits until any evaluation is finished; if a slot becomes idle first, starts evaluating predicted leaves."""
        running = {evaluation.task for evaluation in self._evaluations.values() if not evaluation.task.done()}
        limit, prefetched = self._search.speculation, len(self._evaluations) - len(needed)
        room = min(limit - len(running.difference(needed)), (1 + MAX_KEPT_RATIO) * limit - prefetched)
        awaited = set(running)
        if room > 0 and not self._predicted:
            self._slot = self._slot or self._search.low_priority_queue.request_slot()
            awaited.add(self._slot)
        done, _ = await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if self._slot in done:
            self._slot, self._predicted = None, True
            for leaf in self._predict_leaves(remaining, room):
                self._evaluate(leaf)
        if done & running:
            self._predicted = False

    def _evaluate(self, leaf: Node) -> Evaluation:
        """Returns the evaluation of a leaf, which is started now if it was not before."""
        if leaf.path_key not in self._evaluations:
            roles = LowPriorityRoles(self._search.roles, self._search.low_priority_queue)
            search = dataclasses.replace(self._search, roles=roles)
            task = asyncio.ensure_future(search.evaluate_leaf(self._dialogue, leaf))
            self._evaluations[leaf.path_key] = Evaluation(roles, task)
        return self._evaluations[leaf.path_key]

    def _predict_leaves(self, iterations: int, limit: int) -> list[Node]:
        """Returns at most `limit` leaves that will probably be selected in the next `iterations` and are not evaluated yet.

        The search is continued in an overlay, with the outcomes that are known; the reward of any other leaf is predicted to be its
        current Q.
        """
        overlay, unknown, predicted = TreeOverlay(self._tree), set(), []
        for _ in range(iterations):
            leaf = overlay.select(self._search.c)
            evaluation = self._evaluations.get(leaf.path_key)
            outcome = self._search.known_outcome(leaf) or (evaluation and evaluation.outcome)
            if outcome:
                self._search.apply(overlay, leaf, outcome)
                continue
            if leaf.path_key not in unknown:
                unknown.add(leaf.path_key)
                if not evaluation:
                    predicted.append(leaf)
                if len(predicted) == limit:
                    break
            leaf.backpropagate(leaf.q)
        return predicted
