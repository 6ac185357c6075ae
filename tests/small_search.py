"""A search that is small enough to be computed by hand.

Strategies A, B, C. With `prior_temperature` 1 / ln 2 a prior is 2^score / sum, so the scores 1, 0, 0 give 1/2, 1/4, 1/4. The
judge gives one score to all four criteria, so a turn has the reward score - 3: 4 -> 1, 3 -> 0, 2 -> -1.
"""

import asyncio
import math

from fakes import judged

from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, SeekerReply, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.search.mcts import MCTS
from cso_lab.search.reward import LinearReward
from cso_lab.search.tree import Tree

ABC = StrategySet("abc", {"A": "a", "B": "b", "C": "c"})
REWARD = LinearReward(weights={"E": 1, "I": 1, "H": 1, "S": 7}, divisor=10, bias=-3)


def seeker(text: str) -> Turn:
    """Returns a seeker turn."""
    return Turn(SEEKER, text)


def supporter(strategy: str | None, text: str) -> Turn:
    """Returns a supporter turn."""
    return Turn(SUPPORTER, text, strategy)


K0, S1, K1, S2, K2 = seeker("k0"), supporter("A", "s1"), seeker("k1"), supporter("B", "s2"), seeker("k2")
DIALOGUE = Dialogue("d", "scene", "situation", (K0, S1, K1, S2))


def mcts(roles, strategies=ABC, **changes) -> MCTS:
    """Returns the paper's search with one iteration; `changes` replace its settings."""
    settings = dict(
        c=1.0,
        prior_temperature=1 / math.log(2),
        gold_visits=100,
        gold_prior=0.1,
        rollout_rounds=4,
        min_iterations=1,
        max_iterations=1,
        min_ends=1,
        max_ends=25,
        cache_replies=False,
    )
    return MCTS(roles=roles, reward=REWARD, strategies=strategies, **settings | changes)


def planted(roles, dialogue=DIALOGUE, **changes) -> Tree:
    """Returns the tree as it is before the first iteration, with the gold dialogue as its first path."""
    return asyncio.run(mcts(roles, **changes).init_from_gold(dialogue))


def searched(roles, dialogue=DIALOGUE, **changes) -> Tree:
    """Returns the tree after the search."""
    return asyncio.run(mcts(roles, **changes).search(dialogue))


def children(node) -> dict:
    """Returns the children of a node by strategy."""
    return {child.strategy: child for child in node.children}


# Judge: B.A 4 -> 1, B.A.A 3 -> 0, C 2 -> -1, A.A.A and A.A.A.A 4 -> 1, A.C 4 -> 1. One rollout round.
SCRIPT = dict(
    strategist_says={"A": {"A": 0, "B": 1, "C": 0}},
    judge_says={"B.A": judged(4), "B.A.A": judged(3), "C": judged(2)},
    seeker_says={"C": SeekerReply("bye", True), "B.A.A": SeekerReply(None, True), "A.C": SeekerReply("bye", True)},
)


def hand_made() -> Tree:
    """Returns a tree with every kind of node that eq. 5 and 6 distinguish, at theta 0.5 and 2 visits. Ids are in brackets.

    root ─ A [1] ─ A [4] end, valid
         │       ├ B [5] end, valid
         │       ├ C [6] scored low: dispreferred beside 4 and 5
         ├ B [2] scored low by the extension pass, never visited: dispreferred beside 1
         └ C [3] expanded, but neither visited nor scored: neither preferred nor dispreferred
                 ├ A [7] end, high, but below an unvisited node
                 ├ B [8] exactly theta: neither
                 └ C [9] never expanded
    """
    tree = Tree("t", "scene", "situation")
    root = tree.add(None, None, 1.0, q=0.9, n=50, seeker="k0", gold=True)
    a = tree.add(root, "A", 0.5, q=0.8, n=30, supporter="a", seeker="k1", gold=True)
    tree.add(root, "B", 0.25, q=-1.0, n=0, supporter="b", seeker="k2", scores=judged(2))
    c = tree.add(root, "C", 0.25, q=0.0, n=0, supporter="c", seeker="k3")
    tree.add(a, "A", 0.5, q=0.7, n=2, supporter="a a", seeker=None, end=True, gold=True)
    tree.add(a, "B", 0.25, q=0.6, n=3, supporter="a b", seeker="bye", end=True, scores=judged(4))
    tree.add(a, "C", 0.25, q=0.1, n=4, supporter="a c", seeker="k4", scores=judged(3))
    tree.add(c, "A", 0.5, q=1.0, n=5, supporter="c a", seeker=None, end=True, scores=judged(4))
    tree.add(c, "B", 0.25, q=0.5, n=5, supporter="c b", seeker="k5", scores=judged(3))
    tree.add(c, "C", 0.25)
    return tree
