"""The whole method, from search to report, on a tiny random model."""

import json
from pathlib import Path

from project import run_py


def test_one_cell_from_search_to_report_and_nothing_finished_is_done_again(tmp_path):
    line = [
        *(
            "backbone=tiny_llama",
            "algo=dpo",
            "mode=lora",
            "data.seed_dialogues=2",
            "training.max_steps=2",
            "training.max_rows=8",
        ),
        *("training.batch_size=4", "training.per_device_batch_size=4", "training.max_prompt_length=1200"),
        *("generation.max_new_tokens=12", "generation.max_turns=12", "generation.constrain=format"),
        *("generation.max_prompt_length=1200", "mcts.min_iterations=3", "mcts.max_iterations=3"),
        *(f"hydra.run.dir={tmp_path}/run", f"shared_dir={tmp_path}/shared"),
    ]

    done = run_py(*line, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n"] == 12 and metrics["cell"]["algo"] == "dpo"
    assert metrics["cell"]["varied"]["training.max_steps"] == "2" and "path" not in metrics["context"]
    stages = json.loads((folder / "stages.json").read_text())
    assert set(stages) == {"search", "dataset", "train", "generate", "evaluate"}
    assert len(list(Path(stages["search"]).glob("trees/*.json"))) == 2
    assert (Path(stages["search"]) / "report.html").exists()
    assert list((folder / "checkpoint").glob("*.safetensors"))
    assert len((folder / "train_log.jsonl").read_text().splitlines()) == 2
    assert (folder / "report.md").exists()

    before = (folder / "metrics.json").stat().st_mtime_ns, (folder / "predictions.jsonl").stat().st_mtime_ns
    assert run_py(*line, timeout=300).returncode == 0
    assert ((folder / "metrics.json").stat().st_mtime_ns, (folder / "predictions.jsonl").stat().st_mtime_ns) == before
