"""Exported models as other programs load them: their greedy replies, files and cards."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chats import run_folder
from hub import FakeHub
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from project import ROOT
from templates import stored
from trainings import config

from cso_lab.core.files import write_json
from cso_lab.core.records import SEEKER, Turn, prompt_messages
from cso_lab.core.strategies import EXTES
from cso_lab.export.__main__ import main
from cso_lab.generation.local import LocalModel
from cso_lab.generation.run_folder import run_configuration, run_model
from cso_lab.training.backbone import prepare_backbone

pytestmark = pytest.mark.long

_SMALL = (
    *("data.seed_dialogues=2", "mcts.min_iterations=3", "mcts.max_iterations=3", "training.max_rows=8"),
    *("training.max_prompt_length=1200", "generation.max_new_tokens=24", "generation.max_turns=4"),
)
_CELLS = {
    "lora": ("algo=dpo", "mode=lora", "training.learning_rate=1e-1"),
    "full": ("algo=dpo", "mode=full", "training.dtype=bfloat16"),
    "after": ("algo=dpo_after_sft", "mode=lora", "algorithm.start.training.max_steps=2"),
    "base": ("algo=base",),
    "qlora": ("algo=dpo", "mode=qlora", "training.learning_rate=1e-1"),
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Finished runs of a tiny model, by the names of `_CELLS`; each is made when it is first asked for."""
    from cso_lab.pipeline.run_cell import run_cell

    folder = tmp_path_factory.mktemp("sweep")

    def run(name):
        if name == "qlora":
            pytest.importorskip("bitsandbytes")
        if not (folder / "runs" / name).exists():
            (folder / "runs" / name).mkdir(parents=True)
            cfg = config(folder / "shared", *_SMALL, *_CELLS[name])
            cfg.stages = ["search", "dataset", "train", "generate", "evaluate"]
            run_cell(cfg, folder / "runs" / name, in_sweep=False)
        return folder / "runs" / name

    return run


def own_reply(run, *overrides):
    """The run's own greedy reply to the example on its card, by the engine that generated its predictions."""
    cfg, checkpoint = run_model(run_configuration(run, overrides), run)
    messages = prompt_messages([Turn(SEEKER, "I had a hard week, and I do not know what to do.")], EXTES)
    (reply,) = LocalModel(cfg, checkpoint, EXTES)([messages])
    return reply


def snippet_reply(folder, monkeypatch):
    """What the Python lines on the card print, run in the folder."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    return printed.getvalue().removesuffix("\n")


def assert_says_nothing_of_this_machine(folder, *secrets):
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert [secret for secret in secrets if str(secret).encode() in content] == [], file


@pytest.mark.parametrize("name", ["lora", "full", "after", "base", "qlora"])
def test_the_exported_model_replies_as_the_run_does(name, sweep, tmp_path, monkeypatch):
    run = sweep(name)
    main([str(run), str(tmp_path / "out")])
    reply = own_reply(run)
    assert reply and snippet_reply(tmp_path / "out", monkeypatch) == reply
    if name != "base":
        assert reply != own_reply(sweep("base"))
    dtype = json.loads((tmp_path / "out" / "config.json").read_text())["dtype"]
    assert dtype == ("bfloat16" if name == "full" else "float32")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"} < files
    assert not files & {"adapter_config.json", "adapter_model.safetensors", "start"}
    assert_says_nothing_of_this_machine(tmp_path / "out", run.parents[1], tmp_path, "shared/backbones")


@pytest.mark.parametrize("name", ["lora", "after", "qlora"])
def test_an_unmerged_adapter_has_a_base_that_loads(name, sweep, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    run, out = sweep(name), tmp_path / "out"
    main([str(run), str(out), "--adapter"])
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    assert snippet_reply(out, monkeypatch) == own_reply(run)
    assert AutoModelForCausalLM.from_pretrained(".").active_adapters()
    assert ModelCard.load(out / "README.md").data.library_name == "peft"
    assert_says_nothing_of_this_machine(out, run.parents[1], tmp_path, "shared/backbones")


def test_an_adapter_of_a_model_at_the_hub_names_it(sweep, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(sweep("lora"), run)
    cfg = OmegaConf.load(run / "config.yaml")
    base, cfg.backbone.path = prepare_backbone(cfg), "someone/tiny"
    OmegaConf.save(cfg, run / "config.yaml")
    with FakeHub({"someone/tiny": Path(base)}) as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "cso_lab.export", str(run), str(tmp_path / "out"), "--adapter"]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert not any(name.endswith("model.safetensors") for name in hub.sent)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "someone/tiny"
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == "someone/tiny" and 'from_pretrained("someone/tiny"' in card.text
    assert not (tmp_path / "out" / "base").exists()


@pytest.mark.parametrize("backbone", ["tiny_gemma", "thinking"])
def test_the_card_tells_how_a_prompt_is_written_for_other_templates(backbone, tmp_path, monkeypatch):
    line = [f"backbone={'tiny_qwen' if backbone == 'thinking' else backbone}"]
    run = run_folder(tmp_path / "run", tmp_path / "shared", "algo=base", "generation.constrain=none", *line)
    if backbone == "thinking":
        cfg = OmegaConf.load(run / "config.yaml")
        shutil.copytree(prepare_backbone(cfg), tmp_path / "model")
        (tmp_path / "model" / "chat_template.jinja").write_text(stored("qwen3"), encoding="utf-8")
        cfg.backbone.path = str(tmp_path / "model")
        OmegaConf.save(cfg, run / "config.yaml")
    main([str(run), str(tmp_path / "out")])
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert snippet_reply(tmp_path / "out", monkeypatch) == own_reply(run)
    assert ("has no\nsystem role" in text) == (backbone == "tiny_gemma")
    assert ("switch thinking off" in text) == (backbone == "thinking")
    assert "This run has not been evaluated." in text
    assert text.split("\n# ")[1].startswith("model, " if backbone == "thinking" else "tiny Gemma2")  # the name of its folder


def test_a_reply_ends_where_the_template_ends_a_turn_and_nothing_of_the_bases_decoding_is_left(sweep, tmp_path):
    from transformers import AutoTokenizer, GenerationConfig

    # The base's own generation configuration would repeat less, and sample.
    run = sweep("full")
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.copytree(copy / "checkpoint", tmp_path / "base")
    own = GenerationConfig(do_sample=True, temperature=0.6, repetition_penalty=1.5, eos_token_id=[7])
    own.save_pretrained(tmp_path / "base")
    settings = json.loads((tmp_path / "base" / "config.json").read_text())
    write_json(tmp_path / "base" / "config.json", settings | {"_name_or_path": "/home/someone/base"})
    cfg = OmegaConf.load(copy / "config.yaml")
    cfg.backbone.path, cfg.algorithm = str(tmp_path / "base"), OmegaConf.load(sweep("base") / "config.yaml").algorithm
    OmegaConf.save(cfg, copy / "config.yaml")
    main([str(copy), str(tmp_path / "out")])
    written = GenerationConfig.from_pretrained(tmp_path / "out")
    end = AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids("<|eot_id|>")
    assert written.eos_token_id == [end, 7] and written.do_sample is False
    assert_says_nothing_of_this_machine(tmp_path / "out", "/home/someone", tmp_path)
    assert written.repetition_penalty in (None, 1.0) and written.temperature in (None, 1.0)


def test_the_card_holds_data_players_method_hyperparameters_and_numbers(sweep, tmp_path):
    run = sweep("after")
    main([str(run), str(tmp_path / "out")])
    card = ModelCard.load(tmp_path / "out" / "README.md")
    metrics = json.loads((run / "metrics.json").read_text())
    low, high = metrics["intervals"]["Q"]
    assert f"{metrics['Q']:.2f} | {low:.2f} to {high:.2f} | 4 |" in card.text
    assert {result.metric_type for result in card.data.eval_results} == {"Q", "B", "Q_W", "R-L"}
    assert card.text.index("### SFT, LoRA") < card.text.index("### CSO-DPO after SFT, LoRA")
    for part in (
        "supporter: simulated/supporter",
        "searched with simulated role players",
        "random weights",
        "preference pairs",
    ):
        assert part in card.text
    assert "| beta |" in card.text and "| adapter: r | 8 |" in card.text and "replace professional human support" in card.text
    assert not re.search(r"\{\{|\{%|\bNone\b", card.text)


def test_a_base_at_the_hub_is_named_with_its_licence(sweep, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(sweep("full"), copy)
    main([str(copy), str(tmp_path / "out"), "backbone.path=google/gemma-2-9b-it"])
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (data.base_model, data.license) == ("google/gemma-2-9b-it", "gemma")
