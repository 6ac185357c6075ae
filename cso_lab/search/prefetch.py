"""Working on likely next leaves ahead of time, without changing what the search finds.

What working on a leaf finds out depends on the leaf alone, not on Q or N. So it may be found out early, and be kept until the
search itself selects the leaf; if it never does, only the calls were in vain. Outcomes are applied in the search's own order.
"""

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cso_lab.core.records import Dialogue
from cso_lab.search.idle_slots import AskedAhead
from cso_lab.search.tree import Node, Tree

if TYPE_CHECKING:
    from cso_lab.search.mcts import MCTS, Outcome

KEPT = 2  # outcomes kept for leaves not selected yet, as a multiple of `speculation`: the most that can be in vain at the end


class TreeOverlay(Tree):
    """A copy of a tree to go on searching in. It copies only what it looks at; the tree itself stays as it is."""

    def __init__(self, tree: Tree):
        super().__init__(tree.id, tree.scene, tree.description)
        self.nodes.append(_copied(tree.root, None))

    def children_of(self, node: Node) -> list[Node]:
        if node.children and node.children[0].parent is not node:
            node.children = [_copied(child, node) for child in node.children]
        return node.children


def _copied(node: Node, parent: Node | None) -> Node:
    return dataclasses.replace(node, parent=parent, children=list(node.children))


@dataclass(frozen=True)
class Work:
    """One leaf being worked on, or worked on already."""

    players: AskedAhead
    task: "asyncio.Task[Outcome]"

    @property
    def found(self) -> "Outcome | None":
        """What it found out, as soon as it has. An error is shown only to the search that needs the outcome."""
        failed = not self.task.done() or self.task.cancelled() or self.task.exception()
        return None if failed else self.task.result()


class Prefetcher:
    """Outcomes of leaves, those of likely next ones worked on in advance. A context: leaving it cancels what is under way.

    Leaves are known by their path keys: a likely one may stand in an overlay only, where it has no number yet.
    """

    def __init__(self, search: "MCTS", dialogue: Dialogue, tree: Tree):
        self._search, self._dialogue, self._tree = search, dialogue, tree
        self._works: dict[str, Work] = {}  # by path_key, until the search has taken the outcome
        self._permission: asyncio.Future | None = None  # to look ahead, once a slot is idle
        self._looked = False  # since anything was last found out

    async def __aenter__(self) -> "Prefetcher":
        return self

    async def __aexit__(self, *_) -> None:
        waiting = [work.task for work in self._works.values()] + ([self._permission] if self._permission else [])
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def outcomes(self, leaves: Sequence[Node], left: int) -> "list[Outcome]":
        """What working on `leaves` finds out; the search will take at most `left` iterations, theirs included."""
        works = [self._work(leaf) for leaf in leaves]
        for work in works:
            work.players.promote()
        self._looked = False
        while not all(work.task.done() and work.found for work in works):
            await self._wait([work.task for work in works], left)
            for work in works:
                if work.task.done():
                    work.task.result()  # an error comes out as itself, as soon as it is there
        for leaf in leaves:
            del self._works[leaf.path_key]
        return [work.found for work in works]

    async def _wait(self, needed: Sequence[asyncio.Task], left: int) -> None:
        """Until anything is found out; meanwhile start what is likely to be needed, where slots are idle."""
        under_way = {work.task for work in self._works.values() if not work.task.done()}
        most, ahead = self._search.speculation, len(self._works) - len(needed)
        room = min(most - len(under_way.difference(needed)), (1 + KEPT) * most - ahead)
        waiting = set(under_way)
        if room > 0 and not self._looked:
            self._permission = self._permission or self._search.idle_slots.ask()
            waiting.add(self._permission)
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self._permission in done:
            self._permission, self._looked = None, True
            for leaf in self._likely(left, room):
                self._work(leaf)
        if done & under_way:
            self._looked = False

    def _work(self, leaf: Node) -> Work:
        """The work on a leaf, begun now if it was not before."""
        if leaf.path_key not in self._works:
            players = AskedAhead(self._search.roles, self._search.idle_slots)
            search = dataclasses.replace(self._search, roles=players)
            self._works[leaf.path_key] = Work(players, asyncio.ensure_future(search.evaluate_leaf(self._dialogue, leaf)))
        return self._works[leaf.path_key]

    def _likely(self, left: int, most: int) -> list[Node]:
        """At most `most` leaves that will probably be selected within `left` iterations and nobody works on yet.

        The search is simply continued in an overlay: with the outcome where it is known; where not, the leaf is guessed to be
        worth what the search takes it for now, its Q.
        """
        overlay, unknown, likely = TreeOverlay(self._tree), set(), []
        for _ in range(left):
            leaf = overlay.select(self._search.c)
            work = self._works.get(leaf.path_key)
            outcome = self._search.known(leaf) or (work and work.found)
            if outcome:
                self._search.apply(overlay, leaf, outcome)
                continue
            if leaf.path_key not in unknown:
                unknown.add(leaf.path_key)
                if not work:
                    likely.append(leaf)
                if len(likely) == most:
                    break
            leaf.backpropagate(leaf.q)
        return likely
