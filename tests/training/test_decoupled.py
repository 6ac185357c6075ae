"""Strategy planner and response generator trained apart: their rows, their trainings, and what is refused."""

import json
import subprocess
import sys
import time

import forking
import pytest
from omegaconf import OmegaConf
from project import ROOT, composed, run_py
from trainings import config

from cso_lab.config.cells import parts_of
from cso_lab.core.errors import UserError
from cso_lab.core.files import write_jsonl
from cso_lab.pipeline.cell_names import cell_name
from cso_lab.pipeline.check import check
from cso_lab.pipeline.stages import RESULTS
from cso_lab.training.rows import read_rows

PROMPT = [{"role": "user", "content": "I cannot sleep."}]


def pair(chosen, rejected, prompt=PROMPT):
    replies = {side: [{"role": "assistant", "content": f"({s}) {text}"}] for side, (s, text) in (chosen, rejected)}
    strategies = {f"{side}_strategy": s for side, (s, _) in (chosen, rejected)}
    return {"prompt": prompt, **replies, **strategies, "dialogue": "d"}


def test_the_generators_pairs_have_the_chosen_strategy_on_both_sides_and_differ_in_wording(tmp_path):
    good = ("chosen", ("Affirmation", "You (really) try."))
    other = [{"role": "user", "content": "Good evening."}]
    pairs = [
        pair(good, ("rejected", ("Share Information", "Sleep has stages."))),
        pair(good, ("rejected", ("Provide Advice", "Sleep has stages."))),  # the same once its strategy is another one
        pair(good, ("rejected", ("Provide Advice", "(Oh) rest."))),
        pair(good, ("rejected", ("Provide Advice", "You (really) try."))),  # the same wording is no preference
        pair(good, ("rejected", ("Share Information", "Sleep has stages.")), other),
    ]
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    rows = read_rows(tmp_path, "wordings")
    assert [(row["prompt"], row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows] == [
        (PROMPT, "(Affirmation) You (really) try.", "(Affirmation) Sleep has stages."),
        (PROMPT, "(Affirmation) You (really) try.", "(Affirmation) (Oh) rest."),
        (other, "(Affirmation) You (really) try.", "(Affirmation) Sleep has stages."),
    ]
    assert all(row["dialogue"] == "d" for row in rows)
    for left, expected in ((pairs[3:4], "no pair has two wordings"), ([{**pairs[0], "chosen_strategy": None}], "without its")):
        write_jsonl(tmp_path / "pairs.jsonl", left)
        with pytest.raises(UserError, match=expected):
            read_rows(tmp_path, "wordings")


@pytest.mark.parametrize("resolved", [False, True])
def test_the_planner_is_trained_as_dpo_strategy_and_the_generator_on_the_other_tokens(resolved):
    cfg = composed("algo=dpo_decoupled", "start=sft")
    if resolved:
        cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    planner, generator = (OmegaConf.to_container(part.algorithm, resolve=True) for part in parts_of(cfg).values())
    alone = OmegaConf.to_container(composed("algo=dpo_strategy", "start=sft").algorithm, resolve=True)
    assert {key: planner[key] for key in planner if key not in ("name", "label")} == {
        key: alone[key] for key in alone if key not in ("name", "label")
    }
    weights = {"strategy_weight": 0.0, "response_weight": 1.0}
    changed = {"rows": "wordings", **weights, "trainer": {**alone["trainer"], **weights}}
    assert generator == {**planner, "label": "Decoupled DPO: generator", **changed}


def test_what_the_generator_is_trained_with_decides_the_result_and_the_cells_name():
    plain, other = (composed("algo=dpo_decoupled", *line) for line in ([], ["algorithm.generator.strategy_weight=0.5"]))
    assert cell_name(plain) != cell_name(other) and RESULTS["train"].key(plain) != RESULTS["train"].key(other)
    own = composed("algo=dpo_decoupled", "+algorithm.generator.beta=0.7")
    assert [part.algorithm.arguments.beta for part in parts_of(own).values()] == [plain.algorithm.beta, 0.7]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["roles=self", "rounds=2"], "algo=dpo_decoupled trains two models, and a round goes on from one: give algo=dpo"),
        (["generation.engine=server", "serving=transformers"], "replies with two models in turn, in this process only"),
        (
            ["algorithm.generator.response_weight=0"],
            "algorithm.generator.strategy_weight and algorithm.generator.response_weight",
        ),
        (["algorithm.generator.rows=sft"], "algorithm.generator.rows=sft"),
        (["algo=dpo", "+algo@algorithm.start=dpo_decoupled", "+training/start@algorithm.start.training=default"], "two models"),
    ],
)
def test_what_two_models_cannot_do_is_refused_in_one_line(line, expected):
    with pytest.raises(UserError, match=expected) as refused:
        check(composed("algo=dpo_decoupled", "backbone=tiny_llama", *line))
    assert "\n" not in str(refused.value)


def test_a_run_of_two_models_is_opened_neither_to_talk_to_nor_to_export(tmp_path):
    from cso_lab.chat.partner import open_run
    from cso_lab.export.model import export_adapter, export_model

    OmegaConf.save(composed("algo=dpo_decoupled", "backbone=tiny_llama"), tmp_path / "config.yaml", resolve=True)
    (tmp_path / "checkpoint").mkdir()
    for attempt in (
        open_run,
        lambda run: export_model(run, tmp_path / "out"),
        lambda run: export_adapter(run, tmp_path / "out"),
    ):
        with pytest.raises(UserError, match="algo=dpo_decoupled is two models that reply in turn"):
            attempt(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_two_models_are_left_of_which_the_planner_is_that_of_dpo_strategy(shared, data, tmp_path, mode):
    import torch
    from safetensors.torch import load_file

    from cso_lab.core.manifest import damage
    from cso_lab.training.decoupled import train_parts
    from cso_lab.training.train import train

    def weights(folder):
        return load_file(next(folder.glob("*.safetensors")))

    def same(one, other):
        return all(torch.equal(one[name], other[name]) for name in one)

    cfg = config(shared, "algo=dpo_decoupled", f"mode={mode}")
    summary = train_parts(cfg, data, tmp_path / "both")
    checkpoint = tmp_path / "both" / "checkpoint"
    train(config(shared, "algo=dpo_strategy", f"mode={mode}"), data, tmp_path / "alone")
    assert same(weights(checkpoint), weights(tmp_path / "alone" / "checkpoint"))
    assert not same(weights(checkpoint), weights(checkpoint / "generator"))
    assert damage(checkpoint) is None
    assert (summary["steps"], summary["planner"]["steps"], summary["generator"]["steps"]) == (4, 2, 2)
    log = [json.loads(line) for line in (tmp_path / "both" / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(step["step"], step["part"]) for step in log] == [
        (1, "planner"),
        (2, "planner"),
        (3, "generator"),
        (4, "generator"),
    ]
    next((checkpoint / "generator").glob("*.safetensors")).write_bytes(b"")
    assert "generator" in damage(checkpoint)


SMALL = (
    *("backbone=tiny_llama", "algo=dpo_decoupled", "data.seed_dialogues=2", "mcts.min_iterations=2", "mcts.max_iterations=2"),
    *("mcts.rollout_rounds=0", "training.max_steps=4", "training.batch_size=4", "training.max_prompt_length=1200"),
    *("training.save_steps=1", "training.learning_rate=1e-3", "training.dtype=float32", "hardware=cpu"),
    *("generation.max_turns=4", "generation.max_new_tokens=12", "generation.max_prompt_length=1200"),
    *("generation.constrain=likelihood", "tracking=none"),
)


@pytest.mark.long
def test_a_killed_run_goes_on_with_the_generator(tmp_path):
    line, run = [*SMALL, f"shared_dir={tmp_path / 'shared'}", f"hydra.run.dir={tmp_path / 'run'}"], tmp_path / "run"
    parts = run / "parts"
    killed = forking.Popen(
        [sys.executable, str(ROOT / "run.py"), *line], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 300
        while not list(parts.glob("generator/steps/*/manifest.json")) and killed.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        killed.kill()
        killed.wait()
    assert not (run / "checkpoint").exists()
    planner = (parts / "planner" / "training.json").read_bytes()

    done = run_py(*line, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "Decoupled DPO: planner" not in done.stderr and "Decoupled DPO: generator" in done.stderr
    assert (parts / "planner" / "training.json").read_bytes() == planner
    log = [json.loads(line) for line in (run / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [step["step"] for step in log] == list(range(1, 9))
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["n"], metrics["unparsed"]) == (4, 0)
    assert "| Decoupled DPO |" in (run / "report.md").read_text(encoding="utf-8")
