"""A training of less than one pass over its rows: only the rows it comes to are prepared, and they are those a whole pass begins with."""

import pytest
import torch
from trainings import config, trainer_of

LINE = ("training.batch_size=2", "training.max_prompt_length=2000", "training.max_steps=-1")


@pytest.mark.parametrize(("algo", "steps"), [("sft", 1), ("dpo", 2), ("kto", 3), ("simpo", 2)])
def test_half_a_pass_is_the_first_half_of_a_whole_one(shared, data, tmp_path, algo, steps):
    half, _, rows, _ = trainer_of(
        config(shared, f"algo={algo}", *LINE, "training.num_train_epochs=0.5"), data, tmp_path / "half"
    )
    whole, *_ = trainer_of(config(shared, f"algo={algo}", *LINE, "training.num_train_epochs=1"), data, tmp_path / "whole")
    assert (len(half.train_dataset), len(whole.train_dataset)) == (2 * steps, len(rows))
    for one, other in zip(half.get_train_dataloader(), list(whole.get_train_dataloader())[:steps], strict=True):
        assert one.keys() == other.keys()
        for name in filter(lambda name: isinstance(one[name], torch.Tensor), one):
            torch.testing.assert_close(one[name], other[name])
    half.train()
    assert half.state.global_step == steps


def test_random_batches_of_half_a_pass_are_not_the_first_dialogues(shared, data, tmp_path):
    line = ("algo=sft", *LINE, "training.batching=random", "training.num_train_epochs=0.5")
    drawn = []
    for seed in (0, 1):
        half, _, rows, _ = trainer_of(config(shared, *line, f"training.seed={seed}"), data, tmp_path / str(seed))
        drawn.append({row["prompt"] + row["completion"] for row in half.train_dataset})
    assert len(half.train_dataset) == len(rows) // 2
    first = {row["prompt"] + row["completion"] for row in rows[: len(rows) // 2]}
    assert drawn[0] != drawn[1] or drawn[0] != first


@pytest.mark.long
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_reference_log_probabilities_taken_before_change_nothing(shared, data, tmp_path, mode):
    from cso_lab.training.train import train

    line = ["algo=dpo", f"mode={mode}", *LINE, "training.num_train_epochs=0.5", "algorithm.beta=0.5"]
    found = []
    for before in ("true", "false"):
        cfg = config(shared, *line, f"training.precompute_ref_log_probs={before}")
        summary = train(cfg, data, tmp_path / before)
        found.append((summary["steps"], summary["loss"]))
    assert found[0][0] == found[1][0] == 2
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-4)
