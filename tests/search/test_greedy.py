"""Greedy paths and other rewards: the search and its reward can be swapped."""

import asyncio

import pytest
from fakes import ScriptedRoles, judged
from hydra.utils import instantiate
from project import composed
from random_players import FIVE, RandomPlayers, gold_dialogue, run
from small_search import DIALOGUE, REWARD, children, mcts

from cso_lab.core.errors import UserError
from cso_lab.core.records import SeekerReply
from cso_lab.pipeline.check import check
from cso_lab.pipeline.stages import RESULTS
from cso_lab.preferences.escpro import EscPro
from cso_lab.search.greedy import Greedy
from cso_lab.search.mcts import MCTS
from cso_lab.search.reward import LinearReward, WeakestReward
from cso_lab.search.tree import Tree


def greedy(roles, **changes) -> Tree:
    return asyncio.run(Greedy(**vars(mcts(roles, rollout_rounds=1, **changes))).search(DIALOGUE))


SCRIPT = dict(
    # beside the gold A: C; beside the gold B: C again, though B itself is scored higher
    strategist_says={"": {"A": 2, "B": 0, "C": 1}, "A": {"A": 0, "B": 3, "C": 2}, "C": {"A": 0, "B": 1, "C": 0}},
    judge_says={"C": judged(2), "C.B": judged(3), "A.C": judged(1)},
    seeker_says={"A.C": SeekerReply("bye", True)},
)


def test_greedy_paths_by_hand():
    roles = ScriptedRoles(**SCRIPT)
    tree = greedy(roles)
    first, second = children(tree.root), children(tree.nodes[1])
    # C: 2 -> -1, then B: 3 -> 0, the last round; A.C ends at once with 1 -> -2
    assert (first["C"].q, first["C"].n, first["C"].scores) == (pytest.approx(-0.5), 1, judged(2))
    after = children(first["C"])
    assert (after["B"].q, after["B"].n, after["B"].supporter) == (0, 1, "s:C.B")
    assert not after["A"].expanded and not after["B"].children
    assert (second["C"].q, second["C"].n, second["C"].end) == (pytest.approx(-2), 1, True)
    assert not first["B"].expanded and not second["A"].expanded
    assert [(node.q, node.n) for node in tree.nodes if node.gold] == [(1, 100)] * 3
    assert roles.counts() == {"strategist": 2 + 1, "supporter": 3, "seeker": 3, "judge": 3}


def test_greedy_trees_have_the_schema_of_all_trees_and_give_pairs():
    tree = greedy(ScriptedRoles(**SCRIPT))
    assert Tree.from_json(tree.to_json()).to_json() == tree.to_json()
    (path,) = EscPro(theta=0.5, min_end_visits=2)([tree])
    pairs = [pair for choice in path.choices for pair in choice.pairs()]
    assert [(pair.chosen.strategy, pair.rejected.strategy) for pair in pairs] == [("A", "C"), ("B", "C")]


def test_greedy_reports_each_path_as_an_iteration():
    iterations = []
    search = Greedy(**vars(mcts(ScriptedRoles())))
    asyncio.run(search.search(DIALOGUE, lambda tree, done: iterations.append(done)))
    assert iterations == [1, 2]


# rewards


@pytest.mark.parametrize(
    ("reward", "value", "best", "worst"),
    [
        (REWARD, (1 + 2 + 3 + 7 * 4) / 10 - 3, 1, -3),
        (LinearReward(weights={"S": 1}, divisor=1, bias=-3), 1, 1, -3),
        (LinearReward(weights={"E": 2, "S": 2}, divisor=4, bias=0), (2 + 8) / 4, 4, 0),
        (WeakestReward(bias=-3), -2, 1, -3),
        (WeakestReward(bias=0.5), 1.5, 4.5, 0.5),
    ],
)
def test_rewards_by_hand(reward, value, best, worst):
    scores = {"E": 1, "I": 2, "H": 3, "S": 4}
    assert reward(scores) == pytest.approx(value)
    assert reward(judged(4)) == pytest.approx(best) == reward.best
    assert reward(judged(0)) == pytest.approx(worst) == reward.worst


# as choices of the configuration


@pytest.mark.parametrize(
    ("overrides", "search", "reward"),
    [
        ([], MCTS, LinearReward),
        (["mcts=paper"], MCTS, LinearReward),
        (["mcts=greedy"], Greedy, LinearReward),
        (["mcts=paper", "mcts.leaf_batch_size=3", "mcts/reward=weakest"], MCTS, WeakestReward),
        (["mcts=greedy", "mcts/reward=strategy_only", "mcts.reward.bias=-2"], Greedy, LinearReward),
    ],
)
def test_a_search_and_its_reward_are_chosen_by_name(overrides, search, reward):
    cfg = composed(*overrides, "mcts.min_iterations=3", "mcts.max_iterations=6")
    check(cfg)
    chosen = instantiate(cfg.mcts.reward)
    ours = instantiate(cfg.mcts.search, _partial_=True)(roles=RandomPlayers(), reward=chosen, strategies=FIVE)
    assert (type(ours), type(chosen)) == (search, reward)
    tree, _ = run(ours.search(gold_dialogue("d")))
    assert tree.root.q != chosen.best or search is Greedy
    assert any(node.scores and node.q != chosen.best for node in tree.nodes)


def test_the_papers_search_samples_anew_and_the_small_ones_cache_replies():
    cached = {name: composed(f"mcts={name}").mcts.search.cache_replies for name in ("paper", "quick", "greedy")}
    assert cached == {"paper": False, "quick": True, "greedy": True}


def test_speculation_does_not_change_the_cache_key_and_leaf_batches_do():
    plain, prefetched, batches = (
        RESULTS["search"].key(composed(*line)) for line in ([], ["mcts.speculation=3"], ["mcts.leaf_batch_size=2"])
    )
    assert plain == prefetched != batches


@pytest.mark.parametrize(
    "value",
    [
        *("mcts.speculation=-1", "mcts.speculation=1.5", "mcts.leaf_batch_size=0"),
        *("mcts.reward.weights.S=x", "mcts.reward.weights.S=-1", "mcts.reward.divisor=0", "mcts.reward.bias=null"),
        *("roles.api_base=127.0.0.1:8000", "roles.api_base=http:///v1"),
    ],
)
def test_impossible_settings_are_found_before_any_work(value):
    with pytest.raises(UserError, match=rf"^{value.split('=')[0]}=.*: should be "):
        check(composed(value))


def test_a_criterion_that_the_judge_does_not_know_is_named_with_those_it_does():
    with pytest.raises(UserError, match="criterion of mcts.reward.weights 'T'.*E, I, H, S"):
        check(composed("+mcts.reward.weights.T=1"))
