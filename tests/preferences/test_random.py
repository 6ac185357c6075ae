"""CSO-Random: low-scoring turns swapped for fresh replies; how many expanded dialogues are used."""

import re

import pytest
from fake_batches import FakeBatches
from fakes import FakeOpenAI, Reply, failure
from omegaconf import OmegaConf
from project import composed, run_py
from small_search import ABC, hand_made

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_jsonl
from cso_lab.core.strategies import EXTES
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.check import check
from cso_lab.pipeline.run_cell import run_stages
from cso_lab.preferences.escpro import EscPro, sample_paths
from cso_lab.preferences.generate_negatives import generate_negatives
from cso_lab.preferences.random import RandomNegatives, ReplyRequest
from cso_lab.preferences.rows import pair_rows
from cso_lab.roles.prompts import PLACEHOLDERS

SIX = [*ABC.names, "D", "E", "F"]
SEARCH = ["data.seed_dialogues=2", "mcts.min_iterations=12", "mcts.max_iterations=12"]


@pytest.fixture
def paths():
    return EscPro(theta=0.5, min_end_visits=2)([hand_made()])


def ask(wanted):
    return [f"fresh {one.strategy} after {len(one.history)}" for one in wanted]


def test_as_many_negatives_as_before_in_strategies_no_path_prefers(paths):
    swapped = RandomNegatives(seed=0)(paths, SIX, ask)
    assert [[len(choice.negatives) for choice in path.choices] for path in swapped] == [
        [len(choice.negatives) for choice in path.choices] for path in paths
    ]
    for before, path in zip(paths, swapped, strict=True):
        assert [choice.preferred for choice in path.choices] == [choice.preferred for choice in before.choices]
        for choice in path.choices:
            for node in choice.negatives:
                assert node.supporter == f"fresh {node.strategy} after {len(choice.history)}" and node.q is None
    # the second turn is A on one path and B on the other: neither is random there
    strategies = {seed: RandomNegatives(seed)(paths, SIX, ask) for seed in range(40)}
    second = {path.choices[1].negatives[0].strategy for found in strategies.values() for path in found}
    first = {path.choices[0].negatives[0].strategy for found in strategies.values() for path in found}
    assert (first, second) == (set(SIX) - {"A"}, set(SIX) - {"A", "B"})


def test_the_turn_two_paths_share_is_asked_for_once_and_swapped_alike(paths):
    asked = []
    swapped = RandomNegatives(seed=3)(paths, SIX, lambda wanted: [asked.extend(wanted)] and ask(wanted))
    assert len(asked) == 3  # k0; a a and a b after k1
    assert swapped[0].choices[0].negatives == swapped[1].choices[0].negatives
    rows = pair_rows(swapped, ABC)
    assert len(rows) == 3 and all(row["q_rejected"] is None for row in rows)
    assert [row["rejected"] for row in rows] == [row["rejected"] for row in pair_rows(RandomNegatives(3)(paths, SIX, ask), ABC)]


def test_where_strategies_run_out_a_choice_has_fewer(paths):
    swapped = RandomNegatives(seed=0)(paths, ["A", "B"], ask)
    assert [[len(choice.negatives) for choice in path.choices] for path in swapped] == [[1, 0], [1, 0]]


def test_a_larger_number_of_dialogues_holds_the_smaller_one(paths):
    many = list(range(50))
    chosen = {number: sample_paths(many, number, seed=0) for number in (1, 10, 30, 50, 90, None)}
    assert set(chosen[1]) < set(chosen[10]) < set(chosen[30]) < set(chosen[50])
    assert chosen[50] == chosen[90] == chosen[None] == many and chosen[10] == sorted(chosen[10])
    assert sample_paths(many, 10, seed=1) != chosen[10]


def test_no_dialogue_is_the_base_model():
    check(composed("preferences.dialogues=0", "algo=base"))
    with pytest.raises(UserError, match="preferences.dialogues=0 leaves nothing to train on.*algo=base"):
        check(composed("preferences.dialogues=0"))


@pytest.mark.long
def test_simulated_players_give_the_replies_and_nothing_is_asked_twice(tmp_path):
    line = [*SEARCH, "preferences=random", f"shared_dir={tmp_path}/shared"]
    done = run_py("stages=[search,dataset]", *line, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    dataset = tmp_path / "shared" / "dataset"
    [folder] = dataset.iterdir()
    pairs = read_jsonl(folder / "preferences" / "pairs.jsonl")
    assert pairs and all(row["q_rejected"] is None and row["q_chosen"] > 0.5 for row in pairs)
    assert all(row["chosen_strategy"] != row["rejected_strategy"] for row in pairs)
    calls = read_jsonl(folder / "calls.jsonl")
    assert {call["role"] for call in calls} == {"supporter"}
    before = (folder / "preferences" / "pairs.jsonl").read_bytes()
    (folder / "done.json").unlink()  # as if it had been killed at the last moment
    assert run_py("stages=[dataset]", *line, f"hydra.run.dir={tmp_path}/run").returncode == 0
    assert read_jsonl(folder / "calls.jsonl") == calls and (folder / "preferences" / "pairs.jsonl").read_bytes() == before


def reply(request):
    return Reply("In " + re.search(r"Strategy for your next reply: (.*?) \(", request["messages"][1]["content"]).group(1))


def test_the_supporter_is_asked_in_one_batch(tmp_path):
    wanted = [ReplyRequest("d", "", "", hand_made().nodes[0].history(), name) for name in (*EXTES.names, EXTES.names[0])]
    with FakeOpenAI(failure(403, "in batches only"), batches=FakeBatches(reply)) as server:
        cfg = composed("roles=server", f"roles.api_base={server.api_base}", "roles.batch=true", "roles.batch_poll=0.02")
        plain = OmegaConf.to_container(cfg.roles, resolve=True)
        for role in PLACEHOLDERS:
            plain[role]["model"] = "openai/m" if role == "supporter" else f"simulated/{role}"
        for _ in range(2):
            negatives = generate_negatives(wanted, plain, EXTES, 0, tmp_path)
            assert negatives == [f"In {request.strategy}" for request in wanted]
        assert [len(lines) for lines in server.batches.lines] == [8] and not server.requests


def test_a_supporter_without_batches_is_found_before_the_search(tmp_path):
    line = ("stages=[search,dataset]", f"shared_dir={tmp_path}/shared", "roles.batch=true")
    with pytest.raises(
        UserError, match=r"roles\.batch=true: simulated/supporter \(roles\.supporter\.model\) has no batches here"
    ):
        run_stages(CellContext(composed(*line, "preferences=random"), tmp_path / "run"))
    assert not (tmp_path / "shared").exists()


def test_a_server_is_asked_once_by_the_supporters_prompt(tmp_path):
    history = hand_made().nodes[0].history()
    wanted = [ReplyRequest("d", "", "", history, name) for name in EXTES.names]
    with FakeOpenAI(reply) as server:
        models = [f"roles.{role}.model=openai/m" for role in PLACEHOLDERS]
        cfg = composed("roles=server", f"roles.api_base={server.api_base}", *models)
        plain = OmegaConf.to_container(cfg.roles, resolve=True)
        assert generate_negatives(wanted, plain, EXTES, 0, tmp_path) == [f"In {name}" for name in EXTES.names]
        assert len(server.requests) == 8
        assert generate_negatives(wanted, plain, EXTES, 0, tmp_path) == [f"In {name}" for name in EXTES.names]
        assert len(server.requests) == 8
    assert len(read_jsonl(tmp_path / "calls.jsonl")) == 8
