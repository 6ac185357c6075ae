"""Checkpoints that a full disk, a kill or a bad copy has damaged: passed over, or named in one line, whichever file it is."""

import json
import shutil

import pytest
from trainings import config

from cso_lab.core.errors import UserError
from cso_lab.core.files import write_jsonl
from cso_lab.core.records import SEEKER, Turn, prompt_messages
from cso_lab.core.strategies import EXTES

LINE = ["algo=sft", "mode=lora", "training.max_steps=4", "training.save_steps=2", "training.warmup_ratio=0.2"]


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def changed(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = [cut, lambda file: file.write_bytes(b""), lambda file: file.unlink(), changed]


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prompts = [prompt_messages([Turn(SEEKER, f"I feel low today, number {i}.")], EXTES) for i in range(8)]
    reply = {"role": "assistant", "content": "(Emotional Validation) That is a lot to carry."}
    write_jsonl(folder / "sft.jsonl", [{"prompt": prompt, "completion": [reply]} for prompt in prompts])
    return folder


@pytest.fixture(scope="module")
def stopped(shared, data, tmp_path_factory):
    """A training that did its four steps and could not write its result; its checkpoints of steps 2 and 4 are there."""
    from cso_lab.training import train as module

    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(module, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        module.train(config(shared, *LINE), data, folder)
    assert sorted(path.name for path in (folder / "steps").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    return folder


@pytest.fixture(scope="module")
def resumed(shared, data, stopped, tmp_path_factory):
    """The same training after its latest checkpoint was damaged, run to its end; and what it said."""
    from cso_lab.training.train import train

    folder = tmp_path_factory.mktemp("resumed")
    shutil.copytree(stopped, folder, dirs_exist_ok=True)
    cut(folder / "steps" / "checkpoint-4" / "optimizer.pt")
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("sys.stderr.write", said.append)
        train(config(shared, *LINE), data, folder)
    return folder, "".join(said)


def test_a_training_goes_on_from_the_checkpoint_before_the_damaged_one_and_says_so(stopped, resumed):
    folder, said = resumed
    lines = [line for line in said.splitlines() if "left out" in line]
    assert len(lines) == 1 and lines[0].startswith("checkpoint-4 is left out: optimizer.pt has ")
    assert lines[0].endswith("bytes; the training goes on from checkpoint-2")
    assert losses(folder) == pytest.approx(losses(stopped), abs=1e-6) and len(losses(folder)) == 4
    assert (folder / "checkpoint").is_dir() and not (folder / "steps").exists()


@pytest.mark.parametrize("damage", DAMAGES, ids=["cut", "empty", "missing", "changed"])
def test_whatever_file_is_damaged_the_older_checkpoint_is_left_and_named(stopped, tmp_path, damage):
    from cso_lab.training.checkpoints import drop_damaged, last_checkpoint

    names = files_of(stopped / "steps" / "checkpoint-4")
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} < {str(name) for name in names}
    for number, name in enumerate(names):
        steps = tmp_path / str(number)
        shutil.copytree(stopped / "steps", steps)
        assert drop_damaged(steps) is None and last_checkpoint(steps).name == "checkpoint-4"
        damage(steps / "checkpoint-4" / name)
        said = drop_damaged(steps)
        assert said.startswith("checkpoint-4 is left out: ") and said.endswith("; the training goes on from checkpoint-2"), said
        assert str(name) in said or name.name == "manifest.json"
        assert last_checkpoint(steps) == steps / "checkpoint-2"


def test_files_of_deepspeed_in_folders_of_their_own_are_looked_at_too(tmp_path):
    from cso_lab.core.manifest import write_manifest
    from cso_lab.training.checkpoints import drop_damaged

    for step in (2, 4):
        states = tmp_path / f"checkpoint-{step}" / f"global_step{step}"
        states.mkdir(parents=True)
        (states / "zero_pp_rank_1_mp_rank_00_optim_states.pt").write_bytes(bytes(100))
        write_manifest(states.parent)
    cut(tmp_path / "checkpoint-4" / "global_step4" / "zero_pp_rank_1_mp_rank_00_optim_states.pt")
    assert "global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt has 50 of 100 bytes" in drop_damaged(tmp_path)


def test_without_a_checkpoint_that_is_whole_a_training_starts_afresh(stopped, tmp_path):
    from cso_lab.training.checkpoints import drop_damaged, last_checkpoint

    assert drop_damaged(tmp_path / "none") is None and last_checkpoint(tmp_path / "none") is None
    steps = tmp_path / "steps"
    shutil.copytree(stopped / "steps", steps)
    (steps / "checkpoint-6").mkdir()  # killed while it was written
    for step in (2, 4):
        cut(steps / f"checkpoint-{step}" / "rng_state.pth")
    said = drop_damaged(steps)
    assert said.startswith(
        "checkpoint-6 is left out: it was not written to its end; checkpoint-4 is left out: rng_state.pth has"
    )
    assert said.endswith("bytes; the training starts afresh") and "\n" not in said
    assert last_checkpoint(steps) is None and not list(steps.glob("checkpoint-*"))


@pytest.mark.parametrize("damage", DAMAGES, ids=["cut", "empty", "missing", "changed"])
def test_a_damaged_result_is_named_before_anything_is_generated(resumed, shared, tmp_path, damage):
    from cso_lab.training.backbone import load_model

    folder, cfg = resumed[0] / "checkpoint", config(shared)
    load_model(cfg, folder)
    for number, name in enumerate(files_of(folder)):
        checkpoint = tmp_path / str(number)
        shutil.copytree(folder, checkpoint)
        damage(checkpoint / name)
        if not (checkpoint / "manifest.json").exists():
            continue
        with pytest.raises(
            UserError, match=f"{checkpoint} is damaged: .*delete that folder, and the run's own command trains it"
        ):
            load_model(cfg, checkpoint)


@pytest.mark.parametrize("damage", DAMAGES[:3], ids=["cut", "empty", "missing"])
def test_damaged_weights_and_tokenizers_without_a_manifest_are_named_in_one_line_too(resumed, shared, tmp_path, damage):
    from cso_lab.training.backbone import load_model, load_tokenizer, prepare_backbone

    def loads(load, folder):
        named = 0
        for number, name in enumerate(files_of(folder)):
            copy = tmp_path / f"{folder.name}-{number}"
            shutil.copytree(folder, copy)
            (copy / "manifest.json").unlink(missing_ok=True)
            if (copy / name).exists():
                damage(copy / name)
            try:
                load(copy)
            except UserError as error:
                assert "\n" not in str(error) and str(copy) in str(error)
                named += 1
        return named

    cfg = config(shared)
    base = type(shared)(prepare_backbone(cfg))
    assert loads(lambda folder: load_model(cfg, folder), resumed[0] / "checkpoint") >= 2
    cfg.backbone.path = str(base)

    def load_base(folder):
        cfg.backbone.path = str(folder)
        load_tokenizer(cfg)
        load_model(cfg)

    assert loads(load_base, base) >= 3
