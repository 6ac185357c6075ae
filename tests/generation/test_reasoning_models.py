"""Models that reason, in this process: their reasoning reaches no prediction, whatever their tokenizer makes of its marks."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from generation.test_served import dialogue
from project import composed

from cso_lab.core.strategies import EXTES
from cso_lab.evaluation.score import load_predictions
from cso_lab.generation.generate import generate

HARMONY = ("<|channel|>", "<|message|>", "<|start|>", "<|return|>")
CHANNELS = "<|channel|>analysis<|message|>Hm.<|start|>assistant<|channel|>final<|message|>(Affirmation) Well done.<|return|>"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A tiny model whose tokenizer has the marks of channels as special tokens."""
    from transformers import AutoTokenizer

    from cso_lab.training.backbone import prepare_backbone

    shared = tmp_path_factory.mktemp("shared")
    made = composed("backbone=tiny_llama", "algo=base", f"shared_dir={shared}", "hardware=cpu", "generation.max_new_tokens=200")
    folder = Path(prepare_backbone(made))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(HARMONY), special_tokens=True)
    tokenizer.save_pretrained(folder)
    made.backbone.path = str(folder)
    return made


@pytest.mark.parametrize(
    ("written", "strategy", "response", "cut"),
    [
        ("(Affirmation) Well done.", "Affirmation", "Well done.", False),
        ("<think>Hm.</think>\n\n(Affirmation) Well done.", "Affirmation", "Well done.", False),
        ("Hm.</think>(Affirmation) Well done.", "Affirmation", "Well done.", False),
        (CHANNELS, "Affirmation", "Well done.", False),
        ("<think>Hm. " * 40, None, "", True),
    ],
)
def test_a_prediction_is_the_answer_and_raw_keeps_the_reasoning(
    written, strategy, response, cut, config, tmp_path, monkeypatch
):
    from cso_lab.generation import local
    from cso_lab.training.backbone import load_tokenizer

    ids = load_tokenizer(config)(written, add_special_tokens=False)["input_ids"][:200]
    monkeypatch.setattr("cso_lab.generation.batched_decoding.reply_ids", lambda model, prompts, *_: [ids] * len(prompts))
    monkeypatch.setattr(
        local, "load_model", lambda *_, **__: SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=1))
    )
    generate(config, [dialogue("a", 1)], EXTES, None, tmp_path)
    (row,) = (json.loads(text) for text in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines())
    assert (row["strategy"], row["response"], row.get("cut", False)) == (strategy, response, cut)
    assert "Hm." not in written or "Hm." in row["raw"]
    # Read from the raw reply alone, as a file of another program's may hold it, it is the same.
    del row["strategy"], row["response"]
    (tmp_path / "raw.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (read,) = load_predictions(tmp_path / "raw.jsonl", EXTES)
    assert (read.strategy, read.response, read.cut) == (strategy, response, cut)
