"""A sweep as typed: a cell that fails stops no other and is named with its reason, and the same line does only what is missing."""

import json

import pytest
from project import run_py

SMALL = (
    *(
        "backbone=tiny_llama",
        "algo=base,sft",
        "mode=full",
        "data.seed_dialogues=2",
        "mcts.min_iterations=3",
        "mcts.max_iterations=3",
    ),
    *("training.max_steps=4", "training.max_rows=8", "training.batch_size=4", "training.max_prompt_length=1200"),
    *("generation.max_new_tokens=8", "generation.max_turns=12"),
)


@pytest.mark.long
def test_one_cell_fails_the_others_are_reported_and_the_same_line_does_only_what_is_missing(tmp_path):
    def sweep(rates, *more):
        # at the second of these rates nothing is a number any more
        folders = (f"hydra.sweep.dir={tmp_path}/sweep", f"shared_dir={tmp_path}/shared")
        return run_py("-m", *SMALL, f"training.learning_rate={rates}", *folders, *more, timeout=600)

    def written():
        """When each cell's files were written, by algorithm and learning rate."""
        found = {}
        for file in (tmp_path / "sweep").glob("*/metrics.json"):
            cell = json.loads(file.read_text())["cell"]
            times = [file.with_name(name).stat().st_mtime_ns for name in ("predictions.jsonl", "metrics.json")]
            found[cell["algo"], float(cell["varied"].get("training.learning_rate", 0))] = times
        return found

    done = sweep("1e-4,1e30")
    assert done.returncode == 1, done.stderr[-3000:]
    report = (tmp_path / "sweep" / "report.md").read_text(encoding="utf-8")
    failed = report.split("## Missing or failed cells")[1]
    assert "tiny_llama-sft-full" in failed and "training stopped: " in failed and failed.count("| tiny_llama-") == 1
    assert "training stopped: " in done.stderr and "Traceback" not in done.stderr
    first = written()
    # The untrained model knows no learning rate: one cell.
    assert sorted(first) == [("base", 0), ("sft", 1e-4)]
    searched = [file.stat().st_mtime_ns for file in (tmp_path / "shared" / "search").glob("*/done.json")]

    more = sweep("1e-4,1e-5")
    assert more.returncode == 0, more.stderr[-3000:]
    second = written()
    assert set(second) == {*first, ("sft", 1e-5)} and first.items() <= second.items()
    assert [file.stat().st_mtime_ns for file in (tmp_path / "shared" / "search").glob("*/done.json")] == searched
    report = (tmp_path / "sweep" / "report.md").read_text(encoding="utf-8")
    assert "## Missing or failed cells" not in report and "training.learning_rate=1e-05" in report

    only = sweep("1e-4,1e-5", "rerun=true", "algo=base")
    assert only.returncode == 0, only.stderr[-3000:]
    third = written()
    assert third["base", 0] > second["base", 0] and third["sft", 1e-4] == second["sft", 1e-4]
