"""What a training's log warns of, on logs worked out by hand."""

import json

import pytest

from cso_lab.reporting.report import print_report, write_report
from cso_lab.reporting.training_log import chosen_fell

KEYS = ("rewards/chosen", "logps/chosen", "logps/rejected")


def log(*steps: tuple[float, float, float]) -> list[dict]:
    return [{"step": number, **dict(zip(KEYS, values, strict=True))} for number, values in enumerate(steps, start=1)]


def test_with_a_reference_model_the_reward_decides_and_not_the_batches():
    # The last batch's replies are longer, so that their log-probability is lower, but it rose over the reference.
    assert chosen_fell(log((0.0, -40, -40), (0.1, -60, -61), (0.2, -80, -83), (0.3, -90, -95))) is None
    warning = chosen_fell(log((0.0, -40, -40), (-0.1, -30, -35), (-0.2, -20, -30), (-0.3, -10, -25)))
    assert "their reward, relative to the reference model, went from +0.000 to -0.300" in warning
    assert "(log-probabilities, each of its own batch: preferred -40.0 to -10.0, dispreferred -40.0 to -25.0)" in warning


def test_without_a_reference_model_the_log_probability_decides():
    fell = chosen_fell(log((-7.5, -3.0, -3.1), (-7.6, -3.2, -3.3), (-8.0, -3.5, -4.0), (-9.0, -4.0, -5.0)))
    assert fell.startswith("the log-probability of the preferred replies fell over the training, from -3.0 to -4.0;")
    assert chosen_fell(log((-9.0, -4.0, -5.0), (-7.5, -3.0, -5.0))) is None


@pytest.mark.parametrize("entries", [[], [{"loss": 1.0}], log((0.0, -1, -1)), [{"logps/chosen": -1.0}, {"logps/chosen": -2.0}]])
def test_a_log_that_does_not_tell_warns_of_nothing(entries):
    assert chosen_fell(entries) is None


def test_the_report_and_the_terminal_say_it_by_row_and_seed(cell, tmp_path, capsys):
    folders = [cell(f"dpo{seed}", seed=seed) for seed in (0, 1)] + [cell("base", algo="base")]
    steps = log((0.0, -40, -40), (-0.3, -44, -60))
    (folders[1] / "train_log.jsonl").write_text("\n".join(map(json.dumps, steps)))
    (folders[2] / "train_log.jsonl").write_text("{damaged")
    text = write_report(folders, tmp_path, "demo").read_text(encoding="utf-8")
    sentence = "CSO-DPO, seed 1: the log-probability of the preferred replies fell over the training: their reward"
    assert text.count("preferred replies fell") == 1 and sentence in text
    print_report(folders, tmp_path / "report.md")
    assert "preferred replies fell" in capsys.readouterr().out


def test_two_trainings_of_one_log_are_read_apart(cell, tmp_path):
    folder = cell("decoupled", algo="dpo_decoupled")
    rising, falling = log((0.0, -4, -4), (0.5, -4, -5)), log((0.0, -40, -40), (-0.3, -44, -60))
    steps = [{**step, "part": part} for part, part_log in (("planner", rising), ("generator", falling)) for step in part_log]
    (folder / "train_log.jsonl").write_text("\n".join(map(json.dumps, steps)))
    text = write_report([folder], tmp_path, "demo").read_text(encoding="utf-8")
    assert (
        text.count("preferred replies fell") == 1 and ", generator: the log-probability of the preferred replies fell" in text
    )
