"""Results are found by what models and a user's own code hold, and not by what they are called."""

import json
import os
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from project import composed, run_py

from cso_lab.core.model_files import model_content
from cso_lab.pipeline.sources import sources
from cso_lab.pipeline.stages import RESULTS
from cso_lab.training.backbone import prepare_backbone


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A package and a module of a user's own, outside of ours."""
    files = {
        "their_code/__init__.py": "",
        "their_code/parts.py": "def reward():\n    from .helper import weigh\n    return weigh\n\nclass Builder: pass\n",
        "their_code/helper.py": "from their_code import numbers_\n",
        "their_code/numbers_.py": "SEVEN = 7\n",
        "their_code/other.py": "",
        "their_module.py": "import their_code.helper, json, torch, cso_lab.core.files\n\nclass Trainer: pass\n",
    }
    for name, text in files.items():
        file = tmp_path / "code" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    return tmp_path / "code"


# Where a configuration can name a user's own code, and the stages whose results it makes.
PARTS = {
    "mcts.reward": ["search"],
    "mcts.search": ["search"],
    "data.reader": ["search", "inspect", "converse", "generate", "testset"],
    "preferences.builder": ["dataset"],
    "preferences.negatives": ["dataset"],
    "algorithm.trainer": ["train"],
    "algorithm.arguments": ["train"],
    "algorithm.start.trainer": ["train"],
    "finetune_mode.peft": ["train"],
    "decoding.method": ["converse", "generate"],
    "toxicity.scorer": ["inspect", "scores"],
}


@pytest.fixture(scope="module")
def cfg():
    return composed("algo=dpo_after_sft", "hardware=cpu", "training.dtype=float32")


@pytest.mark.parametrize("part", PARTS)
def test_an_edit_of_the_users_own_code_changes_the_keys_of_what_it_makes(mine, part, cfg):
    cfg = cfg.copy()
    OmegaConf.update(cfg, f"{part}._target_", "their_code.parts.Builder", force_add=True)
    before = {stage: RESULTS[stage].key(cfg) for stage in RESULTS}
    (mine / "their_code" / "other.py").write_text("# nobody imports it\n")
    assert before == {stage: RESULTS[stage].key(cfg) for stage in RESULTS}
    (mine / "their_code" / "parts.py").write_text("class Builder: changed = True\n\ndef reward(): return 1\n")
    assert {stage for stage in RESULTS if RESULTS[stage].key(cfg) != before[stage]} == set(PARTS[part])
    assert "their_code" not in sys.modules  # it was read, and not run


def test_of_the_users_own_code_all_that_it_imports_counts_and_libraries_by_their_version(mine):
    def code(target):
        return sources({"a": [{"_target_": target}]})[target]

    module, parts = code("their_module.Trainer"), code("their_code.parts.Builder")
    (mine / "their_code" / "numbers_.py").write_text("SEVEN = 8\n")
    assert code("their_module.Trainer") != module and code("their_code.parts.Builder") != parts
    assert code("trl.DPOTrainer").startswith("trl 1.") and code("torch.nn.Linear").startswith("torch 2.")
    assert code("json.loads").startswith("Python 3.") and code("nobody_has_this.X") == "not found"
    assert sources({"_target_": "cso_lab.search.mcts.MCTS"}) == {}
    by_path = {"_target_": "hydra.utils.get_class", "path": "their_code.parts.Builder"}
    assert "their_code.parts.Builder" in sources(by_path)


def test_a_model_folder_counts_by_all_its_content_also_where_name_size_and_time_are_the_same(tmp_path):
    model, cache = tmp_path / "model", tmp_path / "digests"
    model.mkdir()
    weights = model / "model.safetensors"
    weights.write_bytes(b"\0" * 64)
    (model / "config.json").write_text("{}")
    os.utime(weights, ns=(10**18, 10**18))
    first = model_content(str(model), cache)
    assert model_content(str(model), cache) == first
    weights.write_bytes(b"\0" * 63 + b"\1")
    os.utime(weights, ns=(10**18, 10**18))
    second = model_content(str(model), cache)
    assert second != first
    (model / "trainer_state.json").write_text("{}")
    (model / "optimizer.pt").write_bytes(b"x")
    assert model_content(str(model), cache) == second
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert model_content(str(model), cache) != second
    next(cache.glob("*.json")).write_text("damaged")
    weights.write_bytes(b"\0" * 64)
    (model / "chat_template.jinja").unlink()
    assert model_content(str(model), cache) == first  # wherever it lies
    (tmp_path / "moved").symlink_to(model)
    assert model_content(str(tmp_path / "moved"), cache) == first


def test_a_hub_id_counts_by_the_revision_in_the_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert model_content("org/model", tmp_path) is None
    reference = tmp_path / "models--org--model" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text("0123abcd")
    assert model_content("org/model", tmp_path) == "0123abcd"


@pytest.mark.long
def test_weights_that_are_made_here_are_made_again_where_they_are_to_be_others(tmp_path):
    line = ("backbone=tiny_llama", f"shared_dir={tmp_path}")
    first = prepare_backbone(composed(*line))
    assert prepare_backbone(composed(*line)) == first
    other = prepare_backbone(composed(*line, "backbone.random.seed=1"))
    assert other != first
    assert (Path(other) / "model.safetensors").read_bytes() != (Path(first) / "model.safetensors").read_bytes()


@pytest.mark.long
def test_the_same_line_does_again_what_edited_code_and_another_model_in_the_same_folder_make(mine, tmp_path):
    small = "algo=base data.seed_dialogues=2 generation.max_new_tokens=8 generation.max_turns=4 hardware=cpu"
    folders = [f"hydra.run.dir={tmp_path}/run", f"shared_dir={tmp_path}/shared"]
    model, decoding = tmp_path / "model", mine / "their_decoding.py"
    decoding.write_text("from cso_lab.generation.decoding_strategies import Plain\n\nclass Mine(Plain): pass\n")
    target = "decoding.method._target_=their_decoding.Mine"
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(mine), os.environ.get("PYTHONPATH", "")])}

    def run(seed):
        made = prepare_backbone(composed("backbone=tiny_llama", f"shared_dir={tmp_path}/made", f"backbone.random.seed={seed}"))
        model.unlink(missing_ok=True)
        model.symlink_to(made)
        line = [*small.split(), *folders, "backbone=tiny_llama", f"backbone.path={model}", target]
        done = run_py(*line, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        file = tmp_path / "run" / "predictions.jsonl"
        return file.stat().st_mtime_ns, [json.loads(row)["raw"] for row in file.read_text().splitlines()]

    first = run(0)
    assert run(0) == first
    second = run(1)
    assert second[1] != first[1]
    decoding.write_text(
        "from cso_lab.generation.decoding_strategies import Plain\n\n"
        "class Mine(Plain):\n    def __call__(self, conversations, ask):\n        return ['mine' for _ in conversations]\n"
    )
    assert run(1)[1] == ["mine"] * 4
