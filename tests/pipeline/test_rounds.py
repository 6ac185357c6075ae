"""On-policy CSO: rounds of search and training, of which the later ones have the trained model as supporter."""

import json
import subprocess
import sys
import time

import forking
import pytest
from project import ROOT, composed, run_py

from cso_lab.config.cells import previous_round, start_of
from cso_lab.core.errors import UserError
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.cell_names import cell_name
from cso_lab.pipeline.check import check
from cso_lab.pipeline.metadata import cell_metadata
from cso_lab.pipeline.run_cell import run_stages
from cso_lab.pipeline.stages import RESULTS

LINE = ("backbone=tiny_llama", "hardware=cpu", "training.dtype=float32")
TWO = (*LINE, "roles=self", "rounds=2")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["roles=self"], "roles=self has the trained model as supporter from the second round on: give rounds=2"),
        (["roles=self", "rounds=2", "algo=base"], "roles=self .*algo=base trains none: give algo=dpo"),
        (["rounds=2"], "rounds=2 searches again .*: give roles=self"),
        (["roles=self", "rounds=2", "data.shard=1/2"], "leave out data.shard"),
        (["roles=self", "rounds=2", "preferences=random"], "give preferences=escpro"),
        (["roles=self", "rounds=2", "data=escpro", "data.path=README.md"], "nothing is searched: give other data"),
        (["roles=self", "rounds=2", "roles.supporter.temperature=null"], "roles.supporter.temperature=null .*: give a number"),
        (["rounds=0"], "rounds=0"),
        (["round_start=sft"], "round_start=sft"),
    ],
)
def test_rounds_that_cannot_be_are_refused_in_one_line(line, expected):
    with pytest.raises(UserError, match=expected) as refused:
        check(composed(*LINE, *line))
    assert "\n" not in str(refused.value)


def test_the_first_round_is_the_cell_with_one():
    first, plain = previous_round(composed(*TWO)), composed(*LINE)
    assert (first.rounds, first.roles.on_policy) == (1, False) and previous_round(first) is None
    assert RESULTS["train"].key(first) == RESULTS["train"].key(plain)  # so that its model is taken from a cell beside it
    third = composed(*LINE, "roles=self", "rounds=3")
    assert RESULTS["train"].key(previous_round(third)) == RESULTS["train"].key(composed(*TWO))
    after = start_of(composed(*TWO, "algo=dpo_after_sft"))
    assert RESULTS["train"].key(after) == RESULTS["train"].key(composed(*LINE, "algo=sft"))


def test_other_rounds_are_another_cell_with_another_name_and_beside_no_published_value():
    lines = [LINE, TWO, (*TWO, "round_start=backbone"), (*LINE, "roles=self", "rounds=3"), (*TWO, "algo=dpo_after_sft")]
    cells = [composed(*line) for line in lines]
    assert len({cell_name(cfg) for cfg in cells}) == len({RESULTS["train"].key(cfg) for cfg in cells}) == len(lines)
    names = [(told["algo_label"], told["start_from"], told["start_label"]) for told in map(cell_metadata, cells)]
    assert names == [
        ("CSO-DPO", "base", None),
        ("On-policy CSO-DPO", "dpo", "CSO-DPO"),
        ("On-policy CSO-DPO", "base", None),
        ("On-policy CSO-DPO (3 rounds)", "dpo", "CSO-DPO"),
        ("On-policy CSO-DPO", "dpo_after_sft", "CSO-DPO after SFT"),
    ]
    # what has one round alone does not depend on what a second one would start from
    assert cell_name(composed(*LINE, "round_start=backbone")) == cell_name(composed(*LINE))


@pytest.mark.parametrize(("stage", "make"), [("dataset", "search"), ("train", "search,dataset")])
def test_a_stage_alone_names_the_stages_to_run_first(tmp_path, stage, make):
    cfg = composed(*TWO, f"stages=[{stage}]", f"shared_dir={tmp_path}", "tracking=none")
    with pytest.raises(
        UserError, match=rf"^the search and training of round 1 have not run; make them with: python run.py 'stages=\[{make}\]'"
    ):
        run_stages(CellContext(cfg, tmp_path / "run"))


SMALL = (
    *("data.seed_dialogues=2", "mcts.min_iterations=2", "mcts.max_iterations=2", "mcts.rollout_rounds=0"),
    *("training.max_steps=2", "training.batch_size=4", "generation.max_turns=8", "generation.max_new_tokens=16"),
    *("generation.constrain=format", "tracking=none"),
)


@pytest.mark.long
def test_a_killed_run_goes_on_and_its_second_search_is_that_of_the_trained_model(tmp_path):
    shared = tmp_path / "shared"
    line = [*TWO, *SMALL, f"shared_dir={shared}", f"hydra.run.dir={tmp_path / 'run'}"]
    estimate = run_py(*line, "estimate=true")
    assert estimate.returncode == 0, estimate.stderr
    told = [text for text in estimate.stdout.splitlines() if text.startswith("round ")]
    assert [text[:8] for text in told] == ["round 1:", "round 2:"] and "costs nothing" in told[1] and "costs" not in told[0]

    killed = forking.Popen(
        [sys.executable, str(ROOT / "run.py"), *line], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 300
        while not (found := own_calls(shared)) and killed.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        killed.kill()
        killed.wait()
    assert found and not (tmp_path / "run" / "metrics.json").exists()
    finished = {path: path.read_bytes() for path in shared.glob("*/*/done.json") if path.parents[1].name != "backbones"}
    assert {path.parents[1].name for path in finished} == {"search", "dataset", "train"}  # the first round

    done = run_py(*line, timeout=400)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in finished} == finished
    replies = [call for call in own_calls(shared) if "reply" in call]
    assert len({call["key"] for call in replies}) == len(replies) > len(found)  # none was asked for again
    assert len(list(shared.glob("search/*/done.json"))) == len(list(shared.glob("dataset/*/done.json"))) == 2
    training = json.loads((tmp_path / "run" / "training.json").read_text(encoding="utf-8"))
    assert training["steps"] == training["previous_round"]["steps"] == 2
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["cell"]["algo_label"], metrics["context"]["rounds"], metrics["context"]["roles"]) == (
        *("On-policy CSO-DPO", 2, "self"),
    )
    # The pairs of the second round are the model's own replies; the preferred turns of the gold path stay.
    stages = json.loads((tmp_path / "run" / "stages.json").read_text(encoding="utf-8"))
    rows = (tmp_path / "run").parent.joinpath(stages["dataset"], "preferences", "pairs.jsonl").read_text(encoding="utf-8")
    said = {" ".join(call["reply"].split()) for call in replies}
    rejected = [json.loads(row)["rejected"][0]["content"].partition(") ")[2] for row in rows.splitlines()]
    assert rejected and sum(any(text in reply for reply in said) for text in rejected) == len(rejected)


@pytest.mark.long
def test_a_later_round_can_start_from_the_sft_model_of_the_first(tmp_path):
    """The first round's SFT is not trained again on the rows of the second."""
    shared = tmp_path / "shared"
    line = [*TWO, *SMALL, "start=sft", "algorithm.start.training.max_steps=2", "round_start=backbone"]
    line += ["mcts.min_iterations=6", "mcts.max_iterations=6", "preferences.theta=0", "preferences.min_end_visits=1"]
    line += ["stages=[search,dataset,train]"]
    done = run_py(*line, f"shared_dir={shared}", f"hydra.run.dir={tmp_path / 'run'}", timeout=400)
    assert done.returncode == 0, done.stderr
    assert len({file.read_bytes() for file in shared.glob("dataset/*/preferences/sft.jsonl")}) == 2
    trained = [json.loads(file.read_text(encoding="utf-8")) for file in shared.glob("train/*/training.json")]
    [sft] = [training for training in trained if "start" not in training]
    [first] = [training for training in trained if "start" in training]
    last = json.loads((tmp_path / "run" / "training.json").read_text(encoding="utf-8"))
    assert first["start"] == last["start"] == sft and "previous_round" not in last


def own_calls(shared):
    """Returns the lines of the journals below `shared` about calls of self/supporter."""
    lines = [line for file in shared.glob("search/*/calls.jsonl") for line in file.read_text(encoding="utf-8").splitlines()]
    return [call for call in (json.loads(line) for line in lines if line.endswith("}")) if call["model"] == "self/supporter"]
