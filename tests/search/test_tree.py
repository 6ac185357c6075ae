"""The tree and the reward: equations 1, 2 and 4, selection, JSON."""

import json

import pytest
from fakes import ScriptedRoles, judged
from small_search import REWARD, SCRIPT, planted, searched

from cso_lab.search.tree import Tree


def test_reward_is_equation_2():
    assert REWARD({"E": 4, "I": 3, "H": 2, "S": 1}) == pytest.approx((4 + 3 + 2 + 7) / 10 - 3)
    assert REWARD(judged(0)) == -3
    assert REWARD.best == REWARD(judged(4)) == 1


def test_pucb_is_equation_1():
    tree = planted(ScriptedRoles())
    gold, other, _ = tree.root.children
    assert gold.pucb(2.0) == pytest.approx(1 + 2 * 0.5 * 10 / 101)
    assert other.pucb(2.0) == pytest.approx(2 * 0.25 * 10)


def test_selecting_changes_nothing():
    tree = planted(ScriptedRoles())
    before = tree.to_json()
    assert tree.select(1.0) is tree.select(1.0) is tree.nodes[2]
    assert tree.to_json() == before


def test_json_round_trip():
    tree = searched(ScriptedRoles(**SCRIPT), rollout_rounds=1, min_iterations=6, max_iterations=6)
    data = json.loads(json.dumps(tree.to_json()))
    again = Tree.from_json(data)
    assert again.to_json() == data == tree.to_json()
    assert set(data) == {"id", "scene", "description", "nodes"}
    assert list(data["nodes"][0]) == "id parent strategy prior q n supporter seeker end gold scores".split()
    assert [[child.id for child in node.children] for node in again.nodes] == [
        [child.id for child in node.children] for node in tree.nodes
    ]
    assert again.nodes[10].history() == tree.nodes[10].history()
    assert again.select(1.0).id == tree.select(1.0).id
