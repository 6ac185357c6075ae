"""What the export refuses, what its cards say of names and licences, and the export of a dataset."""

import configparser
import json
from importlib import import_module

import pytest
from chats import run_folder
from huggingface_hub import DatasetCard
from omegaconf import OmegaConf
from project import ROOT, composed

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_jsonl, write_json, write_jsonl
from cso_lab.export.__main__ import main
from cso_lab.export.base import base_model
from cso_lab.export.facts import without_folders
from cso_lab.export.folder import new_folder


def export(*arguments):
    main([str(argument) for argument in arguments])


@pytest.fixture
def dataset(tmp_path):
    """The folder of a dataset as the stage leaves it; it has no row for KTO."""
    folder = tmp_path / "shared" / "dataset" / "0123"
    message = {"role": "assistant", "content": "(Affirmation) You try."}
    prompt = [{"role": "user", "content": "I feel low."}]
    pair = {"prompt": prompt, "chosen": [message], "rejected": [message], "dialogue": "d-1", "q_chosen": None}
    (folder / "preferences").mkdir(parents=True)
    write_jsonl(folder / "preferences" / "pairs.jsonl", [pair] * 3)
    write_jsonl(folder / "preferences" / "sft.jsonl", [{"prompt": prompt, "completion": [message], "dialogue": "d-1"}] * 2)
    write_jsonl(folder / "preferences" / "kto.jsonl", [])
    columns = {"dialogues": 2, "utterances": 8, "mean_dialogue_utterances": 4.0, "mean_utterance_words": 7.25}
    table = {"seed": columns, "per_path": {"all": columns}, "distinct": {}}
    strategies = {"seed": {"Affirmation": 4}, "chosen": {"Affirmation": 3}, "rejected": {"Share Information": 3}}
    write_json(
        folder / "statistics.json", {"rows": {"pairs": 3, "sft": 2, "kto": 0}, "strategies": strategies, "table5": table}
    )
    return folder


def test_what_cannot_be_exported_is_one_line(tmp_path, dataset):
    shared, out = tmp_path / "shared", tmp_path / "out"
    base = run_folder(tmp_path / "base", shared, "algo=base")
    untrained = run_folder(tmp_path / "untrained", shared, "algo=sft")
    api = run_folder(tmp_path / "api", shared, "algo=base", "backbone=gpt_4o", "generation.constrain=none")
    full, _ = tmp_path / "full", (tmp_path / "file").write_text("")
    for arguments, reason in [
        ([tmp_path / "none", out], "no config.yaml in .*none: give the folder of a run"),
        ([untrained, out], "no checkpoint in .*untrained: run its train stage"),
        ([untrained, out, "--dataset"], "its dataset is not here"),
        ([api, out], "gpt_4o is asked over HTTP, and its weights are not here"),
        ([base, out, "--adapter"], "base has no adapter .algo=base trains nothing.: leave out --adapter"),
        ([base, dataset], "0123 is not empty: give another folder, or delete it"),
        ([dataset, base], "base is not empty"),
        ([base, tmp_path / "file"], "file is a file"),
        ([base, out, "seed"], "'seed' is no KEY=VALUE"),
        ([dataset, out, "seed=1"], "a dataset is exported as it is: leave out seed=1"),
        ([base, out, "--adapter", "--dataset"], "not allowed with argument"),
        ([base], "OUT"),
    ]:
        with pytest.raises(UserError, match=reason):
            export(*arguments)
        assert not out.exists() and not full.exists()
    assert not list(tmp_path.glob(".*.partial"))


def test_an_export_is_there_as_a_whole_or_not_at_all(tmp_path):
    out = tmp_path / "new" / "out"
    with pytest.raises(UserError, match="cannot write .*out: No space left"), new_folder(out) as folder:
        (folder / "part").write_text("part")
        raise OSError(28, "No space left on device")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "new" / ".out.partial").mkdir()  # of an export that was killed
    (tmp_path / "new" / ".out.partial" / "old").write_text("")
    out.mkdir()
    with new_folder(out) as folder:
        (folder / "whole").write_text("whole")
        assert list(out.iterdir()) == []
    assert [path.name for path in out.iterdir()] == ["whole"] and list((tmp_path / "new").iterdir()) == [out]


def test_the_card_of_a_dataset_names_its_files_and_statistics(tmp_path, dataset):
    export(dataset, tmp_path / "out")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    configs = card.data.configs
    assert [config["config_name"] for config in configs] == ["pairs", "sft"] and configs[0]["default"]
    for config in configs:
        (file,) = config["data_files"]
        source = dataset / "preferences" / f"{config['config_name']}.jsonl"
        assert file["split"] == "train" and read_jsonl(tmp_path / "out" / file["path"]) == read_jsonl(source)
    assert "does not say what was expanded and by whom" in card.text and card.data.license is None
    assert "| mean utterance words | 7.25 | – | – | – | 7.25 |" in card.text
    assert "| Share Information | 0 | 0 | 3 |" in card.text


def test_the_dataset_of_a_run_has_its_players_and_the_licence_of_the_sample_corpus(tmp_path, dataset):
    run = run_folder(tmp_path / "run", tmp_path / "shared", "algo=dpo")
    write_json(run / "stages.json", {"dataset": str(dataset)})
    export(run, tmp_path / "out", "--dataset")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0" and "- judge: simulated/judge" in card.text.replace("  ", "")
    assert "searched with simulated role players" in card.text

    cfg = OmegaConf.load(run / "config.yaml")
    cfg.data.path, cfg.roles.notice = "/home/someone/private/extes.json", None
    cfg.roles.judge.model, cfg.roles.api_base = "openai//home/someone/models/judge", "http://user:key@10.0.0.7:8000/v1"
    OmegaConf.save(cfg, run / "config.yaml")
    export(run, tmp_path / "other", "--dataset")
    text = (tmp_path / "other" / "README.md").read_text(encoding="utf-8")
    assert "file extes.json" in text and "- judge: openai/judge" in text and "simulated role players" not in text
    assert not any(secret in text for secret in ("someone", "private", "10.0.0.7", "key@", str(tmp_path), "license:"))


@pytest.mark.long
def test_datasets_reads_an_exported_dataset(tmp_path, dataset):
    from datasets import load_dataset

    export(dataset, tmp_path / "eval")  # a name from which a split could be guessed
    for config, rows in (("pairs", 3), ("sft", 2)):
        loaded = load_dataset(str(tmp_path / "eval"), config, cache_dir=str(tmp_path / "cache"))
        assert {split: len(data) for split, data in loaded.items()} == {"train": rows}
    pairs = load_dataset(str(tmp_path / "eval"), split="train", cache_dir=str(tmp_path / "cache"))
    assert pairs[0]["chosen"] == [{"role": "assistant", "content": "(Affirmation) You try."}]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("simulated/judge", "simulated/judge"),
        ("openai//home/someone/model", "openai/model"),
        ("openai/C:\\Users\\someone\\model", "openai/model"),
        ("/home/someone/model", "model"),
        ("~/models/model/", "model"),
        ("openai/./models/model", "openai/model"),
        ("openrouter/qwen/qwen3-8b", "openrouter/qwen/qwen3-8b"),
    ],
)
def test_a_model_is_called_without_the_folders_of_a_machine(name, shown):
    assert without_folders(name) == shown


def test_the_licence_of_the_base_is_that_of_its_card_or_file(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    gemma, smollm2, tiny = (base_model(composed(f"backbone={name}")) for name in ("gemma", "smollm2", "tiny_llama"))
    assert (gemma.hub_id, gemma.licence) == ("google/gemma-2-9b-it", "gemma")
    assert (smollm2.hub_id, smollm2.licence) == (None, "apache-2.0") and "dequantized" in smollm2.origin
    assert tiny.random and tiny.licence is None
    folder = tmp_path / "model"
    folder.mkdir()
    local = composed("backbone=gemma", f"backbone.path={folder}")
    assert base_model(local).licence is None
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    assert base_model(local).licence == "mit" and str(tmp_path) not in str(base_model(local))


def test_the_console_script_is_the_command():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = dict(line.split(" = ") for line in setup["options.entry_points"]["console_scripts"].strip().splitlines())
    module, _, function = scripts["cso-lab-export"].partition(":")
    assert callable(getattr(import_module(module), function))


def test_json_of_the_statistics_is_kept(tmp_path, dataset):
    export(dataset, tmp_path / "out")
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text(encoding="utf-8"))
    assert statistics == json.loads((dataset / "statistics.json").read_text(encoding="utf-8"))
