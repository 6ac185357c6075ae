"""What a training will take is told without weights and without the hub; one that cannot fit is refused, with what would fit."""

import os

import pytest
from project import composed, run_py

from cso_lab.core.errors import UserError

TINY = ("backbone=tiny_llama", "hardware=cpu", "data.seed_dialogues=3")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


def check(shared, folder, *line, parameters=0):
    from cso_lab.pipeline.cell_context import CellContext
    from cso_lab.pipeline.plan import check_memory

    check_memory(CellContext(composed(*TINY, f"shared_dir={shared}", *line), folder), parameters, parameters)


def advised(shared, folder, *line):
    """Returns what the refusal of a training advises."""
    with pytest.raises(UserError, match="would fit") as caught:
        check(shared, folder, *line)
    assert "\n" not in str(caught.value)
    return str(caught.value).partition(" MB: ")[2]


@pytest.mark.long
def test_the_first_setting_that_fits_is_advised(shared, tmp_path):
    from cso_lab.pipeline.cell_context import CellContext
    from cso_lab.pipeline.plan import Planner, alternatives

    cfg = composed(*TINY, f"shared_dir={shared}", "mode=full")
    planner = Planner(CellContext(cfg, tmp_path))
    needed = [(words, planner.estimate(other, "cpu").memory.total) for words, other in alternatives(cfg, "cpu")]
    as_it_is, least = planner.estimate(cfg, "cpu").memory.total, min(total for _, total in needed)
    assert least < as_it_is / 1.15
    first = next(words for words, total in needed if total <= least)
    check(shared, tmp_path, "mode=full", f"hardware.memory={as_it_is / 1e9}")
    assert advised(shared, tmp_path, "mode=full", f"hardware.memory={least / 1e9 + 1e-6}") == f"{first} would fit"
    assert advised(shared, tmp_path, "mode=full", "hardware.memory=0.001").startswith("no setting tried here would fit")


def test_a_training_that_fits_by_far_is_not_estimated_and_one_that_cannot_be_is_not_refused(
    shared, tmp_path, monkeypatch, capsys
):
    from cso_lab.pipeline import plan

    def broken(*_):
        raise RuntimeError("a shape that nobody knows")

    monkeypatch.setattr(plan, "Planner", broken)
    check(shared, tmp_path, parameters=1000)
    assert not capsys.readouterr().err
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    check(shared, tmp_path, parameters=machine)
    assert "memory of the training not estimated: RuntimeError: a shape that nobody knows" in capsys.readouterr().err


def test_settings_are_tried_from_the_least_change_on():
    from cso_lab.pipeline.plan import alternatives

    cfg = composed("mode=full", "hardware=gpu")
    words = [words for words, _ in alternatives(cfg, "cuda")]
    saving = "training.gradient_checkpointing=true"
    assert words[0] == saving and words[1].startswith(f"{saving} training.max_activation_tokens=")
    first = [
        next(i for i, line in enumerate(words) if part in line) for part in ("mode=lora", "mode=qlora", "zero2", "offload")
    ]
    assert first == sorted(first)
    of_lora = dict(alternatives(composed("mode=lora", "hardware=gpu"), "cuda"))
    assert of_lora["mode=qlora"].finetune_mode.quantization.load_in_4bit
    assert not any("mode=lora" in line or "offload" in line for line in of_lora)
    # A machine's memory is not shared out by more processes on it.
    assert not any("zero" in line for line, _ in alternatives(composed("mode=full", "hardware=cpu"), "cpu"))


@pytest.mark.long
def test_a_cell_that_cannot_fit_stops_the_run_before_the_search(tmp_path):
    done = run_py(*TINY, "mode=full", "hardware.memory=0.1", f"shared_dir={tmp_path}/shared", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "hardware.memory=0.1 has 100 MB" in line and "would fit" in line
    assert not (tmp_path / "shared" / "search").exists()


@pytest.mark.long
def test_the_paper_s_backbones_are_estimated_where_no_hub_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    line = ("backbone=llama", "mode=full", "hardware=zero3", "hardware.processes=8", "hardware.flops=4e14", "algo=sft")
    done = run_py("estimate=true", *line, f"shared_dir={tmp_path}/shared", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "the hub http://127.0.0.1:9 cannot be reached" in done.stderr
    assert "train: 8,030,261,248 parameters" in done.stdout and "at hardware.flops=4e+14" in done.stdout
    assert "memory of each of 8 processes" in done.stdout and "generate: 215 turns" in done.stdout
