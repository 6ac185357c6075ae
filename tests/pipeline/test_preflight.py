"""What can be known before a search is found before it, in one line that names the key; looking downloads no weights."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from hub import FakeHub
from project import ROOT, composed, run_py

from cso_lab.core.errors import UserError
from cso_lab.pipeline.check import check

TINY = ("backbone=tiny_llama", "algo=dpo", "mode=lora", "data.seed_dialogues=2", "hardware=cpu")
LOOK = """
import sys
from cso_lab.core.errors import UserError
from cso_lab.pipeline.weights import find_weights
for path in sys.argv[1:]:
    try:
        print(find_weights(path))
    except UserError as error:
        print(error)
"""


def found(*paths, hub, **environment):
    """What `find_weights` says of each path, with HF_ENDPOINT at `hub` and an empty cache."""
    env = dict(os.environ) | {"HF_ENDPOINT": hub, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1"} | environment
    done = subprocess.run([sys.executable, "-c", LOOK, *map(str, paths)], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def model_folder(folder, **files):
    """A folder with these files, {stem: content}; of JSON names the content is dumped."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_weights_at_the_hub_are_looked_for_and_not_downloaded(tmp_path):
    ready = model_folder(tmp_path / "ready", config__json={}, model__safetensors="w" * 1000)
    parts = model_folder(tmp_path / "parts", config__json={}, model__safetensors__index__json={})
    for number in (1, 2):
        (parts / f"model-0000{number}-of-00002.safetensors").write_text("w" * 700)
    empty = model_folder(tmp_path / "empty", config__json={}, README__md="")
    models = {"a/ready": ready, "a/parts": parts, "a/empty": empty, "a/gated": ready, "a/broken": ready}
    with FakeHub(models, gated=("a/gated",), broken=("a/broken",)) as hub:
        said = found(*models, "a/none", hub=hub.url, HF_HOME=str(tmp_path / "cache"))
    assert said[:2] == ["1000", "1400"]
    assert "there are no weights in the repository" in said[2]
    assert "the model is gated: accept its terms at" in said[3] and "hf auth login" in said[3]
    assert "answers 503" in said[4]
    assert "no such folder here, and no such model at" in said[5]
    assert all(line.startswith("backbone.path=a/") for line in said[2:])
    assert not hub.sent


def test_a_hub_out_of_reach_and_incomplete_folders_are_named(tmp_path):
    folders = [
        model_folder(tmp_path / "whole", config__json={}, model__safetensors="w"),
        model_folder(tmp_path / "nothing", config__json={}),
        model_folder(tmp_path / "bare", model__safetensors="w"),
        model_folder(tmp_path / "adapter", adapter_config__json={}),
        model_folder(
            tmp_path / "part", config__json={}, model__safetensors__index__json={"weight_map": {"a": "one", "b": "two"}}
        ),
    ]
    (tmp_path / "part" / "one").write_text("w")
    said = found(
        *folders, tmp_path / "absent", "./absent", "a/model", hub="http://127.0.0.1:9", HF_HOME=str(tmp_path / "cache")
    )
    assert said[0] == "0"
    for line, expected in zip(
        said[1:],
        (
            "no weights in the folder",
            "no config.json",
            "an adapter without the model",
            "of its weights two is missing",
            "no such folder",
            "no such folder",
            "cannot be reached",
        ),
        strict=True,
    ):
        assert expected in line
    (offline,) = found("a/model", hub="http://127.0.0.1:9", HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in offline


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Where the tiny models of this module are made, once."""
    return tmp_path_factory.mktemp("shared")


def preflight(shared, folder, *line, stages=("train", "generate")):
    from cso_lab.pipeline.preflight import preflight

    preflight([(composed(*TINY, *line, f"shared_dir={shared}"), folder, stages)])


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hardware=gpu", "hardware.device=cuda, but no GPU is visible here"),
        ("hardware.processes=2 hardware=zero2 hardware.deepspeed.zero_optimization.stage=7", "zero_optimization.stage=7: "),
        ("hardware=zero2 +hardware.deepspeed.zero_optimization.stag=2", "zero_optimization.stag=2: "),
        ("hardware.launcher=[no_such_command]", "no command 'no_such_command'"),
        ("backbone.attn_implementation=flash_attention_2", "backbone.attn_implementation=flash_attention_2: ImportError"),
        ("backbone.attn_implementation=sdpaa", "backbone.attn_implementation=sdpaa: "),
        ("finetune_mode.peft.target_modules=[nowhere]", "finetune_mode.peft: .*nowhere.* not found"),
        ("finetune_mode.peft.r=0", "finetune_mode.peft: .*`r` should be a positive"),
        ("+finetune_mode.peft.rank=8", "finetune_mode.peft: .*unexpected keyword argument 'rank'"),
        ("training.optim=adamw_bnb_8bit", "training.optim=adamw_bnb_8bit: .*bitsandbytes"),
        ("training.optim=adamw_torhc", "unknown training.optim .*did you mean 'adamw_torch'"),
        ("training.lr_scheduler_type=cosin", "unknown training.lr_scheduler_type 'cosin': did you mean 'cosine'"),
        ("training.lr_scheduler_type=cosine_with_min_lr", "training.lr_scheduler_type=cosine_with_min_lr: "),
        ("+algorithm.arguments.betta=1", "unknown key under algorithm.arguments 'betta': did you mean 'beta'"),
        ("algorithm.trainer._target_=trl.DPOTrainr", "algorithm.trainer: cannot find trl.DPOTrainr"),
    ],
)
def test_what_a_library_would_refuse_is_refused_before_the_search(shared, tmp_path, line, expected):
    with pytest.raises(UserError, match=expected) as caught:
        preflight(shared, tmp_path, *line.split())
    assert "\n" not in str(caught.value)


def tiny_weights(shared):
    """The folder in which the weights of tiny_llama were made."""
    (folder,) = (path for path in (shared / "backbones").glob("tiny_llama-*") if path.is_dir())
    return folder


@pytest.mark.long
def test_a_model_without_a_chat_template_is_refused_before_the_search(shared, tmp_path):
    preflight(shared, tmp_path)
    bare = tmp_path / "bare"
    shutil.copytree(tiny_weights(shared), bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        preflight(shared, tmp_path, f"backbone.path={bare}")


@pytest.mark.long
def test_a_training_that_works_passes_and_what_is_not_trained_is_not_looked_at(shared, tmp_path):
    preflight(shared, tmp_path)
    preflight(shared, tmp_path, "mode=full", "algo=kto")
    preflight(shared, tmp_path, "hardware=zero2", "hardware.device=cpu")
    preflight(shared, tmp_path, "training.optim=adamw_bnb_8bit", stages=("generate",))
    preflight(shared, tmp_path, "hardware=gpu", stages=())
    # The checkpoint of a full training needs of the backbone no more than its tokenizer.
    light = tmp_path / "light"
    shutil.copytree(tiny_weights(shared), light)
    (light / "model.safetensors").unlink()
    preflight(shared, tmp_path, "mode=full", f"backbone.path={light}", stages=("generate",))
    with pytest.raises(UserError, match="no weights in the folder"):
        preflight(shared, tmp_path, "mode=lora", f"backbone.path={light}", stages=("generate",))


@pytest.mark.long
def test_too_little_room_for_the_checkpoint_is_an_error_and_for_all_saved_steps_a_warning(
    shared, tmp_path, monkeypatch, capsys
):
    from safetensors import safe_open

    usage = shutil.disk_usage(tmp_path)
    preflight(shared, tmp_path)
    with safe_open(tiny_weights(shared) / "model.safetensors", "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())

    def free(count):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=count))

    free(16 * parameters - 1)  # the weights in float32, and a saved step: those and AdamW's two moments
    with pytest.raises(UserError, match=r"MB free, but this writes at least \S+ MB there \(checkpoints\)"):
        preflight(shared, tmp_path, "mode=full")
    free(16 * parameters)
    preflight(shared, tmp_path, "mode=full", "training.max_steps=5")
    assert not capsys.readouterr().err
    preflight(shared, tmp_path, "mode=full")
    assert f"may write up to {40 * parameters / 1e6:.1f} MB" in capsys.readouterr().err


@pytest.mark.long
def test_a_checkpoint_that_several_cells_share_is_counted_once(shared, tmp_path, monkeypatch):
    from cso_lab.pipeline.preflight import preflight as together

    def cells(*axis):
        line = [*TINY, "mode=full", "training.max_steps=5", f"shared_dir={shared}"]
        return [(composed(*line, value), tmp_path / value, ("train", "generate")) for value in axis]

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000_000))  # one takes 9.6 MB
    together(cells("decoding=plain", "decoding=self_refine"))
    with pytest.raises(UserError, match="at least 12.0 MB"):
        together(cells("seed=0", "seed=1"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["decoding.method._target_=cso_lab.generation.decoding_strategies.Plian"], "decoding.method: cannot find"),
        (["+decoding.method.word=1"], "decoding.method: .*unexpected|decoding.method: .*too many|takes no arguments"),
        (["preferences.builder._target_=mine.Builder"], "preferences.builder: cannot find mine.Builder"),
        (["+preferences.builder.thta=1"], "preferences.builder: .*'thta'"),
        (["mcts.search._target_=cso_lab.search.mcts.MTCS"], "mcts.search: cannot find"),
        (["debug=maybe"], "debug=maybe: should be a valid boolean"),
    ],
)
def test_a_class_that_a_later_stage_cannot_make_is_named_before_the_search(line, expected):
    with pytest.raises(UserError, match=expected):
        check(composed(*line))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tracking.project=a/b", "tracking.project: Invalid project name 'a/b'"),
        (f"tracking.project={'x' * 129}", "tracking.project: .*exceeded 128 characters"),
        (f"tracking.tags=[{'x' * 65}]", "tracking.tags: .* is 65 characters"),
        ("tracking.tags=['']", "tracking.tags: .*empty"),
    ],
)
def test_names_that_wandb_refuses_are_refused_before_any_stage(line, expected, tmp_path):
    from cso_lab.pipeline.metadata import tracked_cell
    from cso_lab.tracking import tracker

    for mode in ("offline", "auto"):
        cfg = composed("tracking=wandb", f"tracking.mode={mode}", line)
        with pytest.raises(UserError, match=expected):
            tracker(cfg.tracking, tracked_cell(cfg, tmp_path))


@pytest.mark.long
def test_a_sweep_stops_before_its_search_and_a_finished_cell_asks_for_nothing(tmp_path):
    small = ("training.max_steps=1", "training.batch_size=4", "generation.max_turns=2", "generation.max_new_tokens=2")
    where = (f"hydra.sweep.dir={tmp_path}/sweep", f"shared_dir={tmp_path}/shared")
    bad = run_py("-m", *TINY, *small, *where, "training.optim=adamw_torch,adamw_bnb_8bit")
    assert bad.returncode == 2 and len(bad.stderr.strip().splitlines()) == 1 and "training.optim=adamw_bnb_8bit" in bad.stderr
    assert not (tmp_path / "shared" / "search").exists()
    made = ("data.seed_dialogues=6", "mcts.min_iterations=3")
    done = run_py("-m", *TINY, *small, *where, *made, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.rmtree(tmp_path / "shared" / "backbones")  # whoever looked for the model would make it again
    again = run_py("-m", *TINY, *small, *where, *made)
    assert again.returncode == 0, again.stderr[-2000:]
    assert not (tmp_path / "shared" / "backbones").exists()


@pytest.mark.long
def test_a_model_at_the_hub_is_looked_at_before_the_search_and_fetched_after_it(shared, tmp_path):
    """A gated one stops the run before its search; of a free one only the weights are left to be fetched when the search has begun."""
    preflight(shared, tmp_path)
    model = tiny_weights(shared)
    with FakeHub({"a/tiny": model, "a/gated": model}, gated=("a/gated",)) as hub:
        env = dict(os.environ) | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
        line = [*TINY, "algo=base", "generation.max_turns=2", "generation.max_new_tokens=2", "backbone.max_new_tokens=2"]
        line += [f"shared_dir={tmp_path}/shared", f"hydra.run.dir={tmp_path}/run"]
        gated = run_py(*line, "backbone.path=a/gated", env=env)
        assert gated.returncode == 2 and "the model is gated" in gated.stderr and "Traceback" not in gated.stderr
        assert not (tmp_path / "shared" / "search").exists() and not hub.sent
        stopped = run_py(*line, "backbone.path=a/tiny", "backbone.attn_implementation=sdpaa", env=env)
        assert stopped.returncode == 2 and "backbone.attn_implementation=sdpaa" in stopped.stderr
        assert "config.json" in hub.sent and "model.safetensors" not in hub.sent
        done = run_py(*line, "backbone.path=a/tiny", env=env, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        assert hub.sent["model.safetensors"] == (model / "model.safetensors").stat().st_size
    offline = run_py(*line, "backbone.path=a/tiny", "rerun=true", env=env | {"HF_HUB_OFFLINE": "1"}, timeout=300)
    assert offline.returncode == 0, offline.stderr[-2000:]
