"""The prompts of reinforcement learning are added to a dataset that is finished already, whose key stays."""

import json

import pytest
from project import run_py

from cso_lab.core.files import read_jsonl

LINE = ("backbone=tiny_llama", "hardware=cpu", "data.seed_dialogues=2", "mcts=greedy")


@pytest.mark.long
def test_prompts_are_added_to_a_finished_dataset(tmp_path):
    folders = {}
    for algo, stages in (("sft", "search,dataset"), ("grpo", "dataset")):
        run = tmp_path / algo
        done = run_py(*LINE, f"algo={algo}", f"stages=[{stages}]", f"hydra.run.dir={run}", f"shared_dir={tmp_path / 'shared'}")
        assert done.returncode == 0, done.stderr
        [dataset] = (tmp_path / "shared" / "dataset").iterdir()
        assert str(dataset) in (run / "stages.json").read_text()
        folders[algo] = sorted(file.name for file in (dataset / "preferences").iterdir())
    assert folders == {
        "sft": ["kto.jsonl", "pairs.jsonl", "sft.jsonl"],
        "grpo": ["kto.jsonl", "pairs.jsonl", "prompts.jsonl", "sft.jsonl"],
    }
    sft, prompts = (read_jsonl(dataset / "preferences" / f"{name}.jsonl") for name in ("sft", "prompts"))
    preferred = {}
    for row in sft:
        preferred.setdefault(json.dumps(row["prompt"]), []).append(row["strategy"])
    assert {json.dumps(row["prompt"]): sorted(row["preferred"]) for row in prompts} == {
        p: sorted(set(s)) for p, s in preferred.items()
    }
    assert all(set(row["preferred"]) <= row["values"].keys() for row in prompts)
