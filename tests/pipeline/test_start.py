"""Algorithms that start from another one's training: composed by Hydra, each with steps, name and key of its own."""

import json

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from project import CONF, composed, run_py

from cso_lab.config.cells import start_of
from cso_lab.core.errors import UserError
from cso_lab.pipeline.cell_names import cell_name, register_resolvers, varied
from cso_lab.pipeline.check import check
from cso_lab.pipeline.metadata import cell_metadata
from cso_lab.pipeline.stages import RESULTS

AFTER_SFT = ("algo=dpo_after_sft", "backbone=llama", "hardware=cpu", "training.dtype=float32")
# Of an optimizer's steps; the other values of a training belong to model and machine.
STEPS = {
    "learning_rate": 0.25,
    "num_train_epochs": 9,
    "batch_size": 2,
    "per_device_batch_size": 2,
    "batching": "random",
    "max_steps": 7,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.5,
    "weight_decay": 0.5,
    "max_grad_norm": 3.0,
    "optim": "sgd",
    "max_rows": 5,
    "seed": 8,
}


def test_the_start_has_its_row_of_table_14_whatever_the_line_says_of_the_training():
    cfg = composed(*AFTER_SFT, "mode=full", *(f"training.{name}={value}" for name, value in STEPS.items()))
    sft = composed("algo=sft", "mode=full", *AFTER_SFT[1:])
    assert {name: cfg.training[name] for name in STEPS} == STEPS
    assert start_of(cfg).training == sft.training and start_of(cfg).algorithm == sft.algorithm
    assert cfg.algorithm.start.training.num_train_epochs == 1  # Table 14: SFT in full mode


def test_overrides_of_the_start_are_its_own():
    cfg = composed(*AFTER_SFT, "algorithm.start.training.learning_rate=0.5")
    assert cfg.training == composed(*AFTER_SFT).training
    assert start_of(cfg).training.learning_rate == 0.5


def test_lengths_and_number_types_of_the_start_follow_the_training_unless_it_has_its_own():
    cfg = composed(*AFTER_SFT, "training.max_prompt_length=99", "algorithm.start.training.dtype=bfloat16")
    start = start_of(cfg)
    assert (start.training.max_prompt_length, start.training.dtype, cfg.training.dtype) == (99, "bfloat16", "float32")


def test_another_start_is_another_cell_by_name_and_key_and_is_told():
    line = "algorithm.start.training.learning_rate=2e-5"
    plain, other, dpo = composed(*AFTER_SFT), composed(*AFTER_SFT, line), composed("algo=dpo", *AFTER_SFT[1:])
    assert len({cell_name(cfg) for cfg in (plain, other, dpo)}) == 3 and "dpo_after_sft" in cell_name(plain)
    assert len({RESULTS["train"].key(cfg) for cfg in (plain, other, dpo)}) == 3
    assert varied(other, [line]) == {"algorithm.start.training.learning_rate": "2e-5"}
    told = cell_metadata(plain)
    assert (told["algo"], told["start_from"], told["start_label"]) == ("dpo", "sft", "SFT")
    # how often it writes a checkpoint is nobody's result
    quiet = composed(*AFTER_SFT, "algorithm.start.training.save_steps=3")
    assert RESULTS["train"].key(quiet) == RESULTS["train"].key(plain) and cell_name(quiet) == cell_name(plain)


def test_the_start_is_the_training_of_a_cell_of_its_own_algorithm():
    shorter = "training.max_prompt_length=99"
    start = start_of(composed(*AFTER_SFT, shorter, "training.learning_rate=0.5"))
    assert RESULTS["train"].key(start) == RESULTS["train"].key(composed("algo=sft", *AFTER_SFT[1:], shorter))


def test_any_algorithm_starts_from_any_other_by_one_file(tmp_path):
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "kto_after_dpo.yaml").write_text(
        "# @package algorithm\n"
        "defaults:\n  - kto@_here_\n  - /algo@start: dpo_after_sft\n  - /training/start@start.training: default\n  - _self_\n"
    )
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        line = [f"hydra.searchpath=[pkg://experiments,file://{tmp_path}]", "backbone=qwen", "algorithm.start.beta=0.7"]
        cfg = compose("config", overrides=["algo=kto_after_dpo", *line, "training.dtype=float32"])
    check(cfg)
    assert "kto_after_dpo_after_sft" in cell_name(cfg) and cell_metadata(cfg)["start_label"] == "CSO-DPO after SFT"
    dpo = start_of(cfg)
    sft = start_of(dpo)
    assert [each.algorithm.trainer._target_ for each in (cfg, dpo, sft)] == [
        "trl.KTOTrainer",
        "trl.DPOTrainer",
        "trl.SFTTrainer",
    ]
    assert [each.training.batch_size for each in (cfg, dpo, sft)] == [128, 128, 32]  # Table 14: Qwen, LoRA
    assert OmegaConf.to_container(dpo.algorithm.arguments, resolve=True)["beta"] == 0.7
    assert cfg.algorithm.start.arguments.beta == 0.7 != cfg.algorithm.arguments.beta
    assert sft.training.dtype == "float32" and start_of(sft) is None


def test_every_algorithm_starts_from_sft_by_a_choice_of_the_line():
    short, line = composed(*AFTER_SFT), ("start=sft", *AFTER_SFT[1:])
    long = composed("algo=dpo", *line)
    assert cell_name(long) == cell_name(short) and RESULTS["train"].key(long) == RESULTS["train"].key(short)
    other = composed("algo=dpo_sft", *line, "algorithm.start.training.learning_rate=0.5")
    assert "dpo_sft_after_sft" in cell_name(other) and cell_metadata(other)["start_label"] == "SFT"
    assert start_of(other).training.learning_rate == 0.5 and start_of(other).algorithm.rows == "sft"
    twice = composed("algo=dpo", *line, "algo@algorithm.start=kto")
    assert "dpo_after_kto" in cell_name(twice) and start_of(twice).algorithm.rows == "kto"
    # what trains nothing starts from nothing, as in a sweep of base and others
    base = composed("algo=base", "start=sft")
    check(base)
    assert cell_name(base) == cell_name(composed("algo=base")) and cell_metadata(base)["start_from"] == "base"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["algorithm.start.training.batch_size=0"], r"algorithm.start \(sft\): training.batch_size=0: should be"),
        (["algorithm.start.training.batch_size=3", "hardware.processes=2"], r"algorithm.start \(sft\): .* no multiple"),
        (["algorithm.start.trainer=null"], r"algorithm.start \(sft\) trains nothing: give algorithm.start=null"),
    ],
)
def test_an_impossible_start_is_refused_before_any_work(line, expected):
    with pytest.raises(UserError, match=expected):
        check(composed("algo=dpo_after_sft", *line))


def test_what_is_no_training_is_refused_as_a_start():
    for line in (["algo=dpo", "algorithm.start=sft"], ["algo=dpo", "+algo@algorithm.start=sft"]):
        with pytest.raises(UserError, match="no algorithm with a training of its own"):
            cell_name(composed(*line))


@pytest.mark.long
def test_both_trainings_take_their_own_steps_and_the_report_tells_both(tmp_path):
    small = "backbone=tiny_llama data.seed_dialogues=2 mcts.min_iterations=3 mcts.max_iterations=3 training.max_rows=8"
    small += " training.batch_size=4 training.max_prompt_length=1200 generation.max_new_tokens=8 generation.max_turns=12"
    steps = ["training.max_steps=2", "algorithm.start.training.max_steps=3", "algorithm.start.training.batch_size=8"]
    folders = [f"hydra.run.dir={tmp_path}/run", f"shared_dir={tmp_path}/shared"]
    done = run_py("algo=dpo_after_sft", *small.split(), *steps, *folders, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    training = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (training["steps"], training["start"]["steps"]) == (2, 3)
    assert training["rows"]["used"] == 8 and training["start"]["rows"]["used"] > 8
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "CSO-DPO after SFT" in report and "training steps of the start: 3 of 8 rows" in report
    assert "algorithm.start.training.max_steps: 3" in report
