"""A search in parts: the folders of parts, missing parts, and the union, which is the whole search."""

import json
import subprocess
import sys
from pathlib import Path

import forking
import pytest
from project import composed
from reporting.trees import hand_made, write_search

from cso_lab.expansion.shards import copy_finished_trees, part_folder, union, usage_of_parts
from cso_lab.pipeline.cell_names import cell_name
from cso_lab.pipeline.stages import RESULTS

ROOT = Path(__file__).parents[2]


def tree(name: str):
    made = hand_made()
    made.id = name
    return made


def part(whole: Path, which: str, *names: str, ended: bool = True) -> Path:
    folder = write_search(part_folder(whole, which), *map(tree, names))
    if not ended:
        (folder / "search.json").unlink()
    return folder


def names(files: list[Path]) -> list[str]:
    return [file.stem for file in files]


def test_the_whole_search_is_its_own_only_part(tmp_path):
    assert part_folder(tmp_path, "1/1") == tmp_path
    assert part_folder(tmp_path, "2/4") == part_folder(tmp_path, " 2 / 4 ") == tmp_path / "shards" / "2of4"


def test_the_union_is_ordered_by_dialogue_as_one_search_would_be(tmp_path):
    part(tmp_path, "1/2", "d-1", "d-3")
    part(tmp_path, "2/2", "d-2", "d-4")
    files, missing = union(tmp_path)
    assert names(files) == ["d-1", "d-2", "d-3", "d-4"] and missing == []


def test_a_part_that_has_not_ended_is_missing_and_an_empty_one_is_not(tmp_path):
    part(tmp_path, "1/4", "d-1")
    part(tmp_path, "2/4", "d-2", ended=False)
    part(tmp_path, "4/4")
    assert union(tmp_path)[1] == ["2/4", "3/4"]


def test_of_two_divisions_the_one_that_lacks_fewest_parts_counts(tmp_path):
    part(tmp_path, "1/3", "d-1")
    part(tmp_path, "1/2", "d-1", "d-3")
    assert union(tmp_path)[1] == ["2/2"]
    part(tmp_path, "2/3", "d-2")
    part(tmp_path, "3/3", "d-3")
    files, missing = union(tmp_path)
    assert names(files) == ["d-1", "d-2", "d-3"] and missing == []


def test_a_whole_search_that_has_ended_stands_for_itself_and_one_that_broke_off_for_nothing_beside_parts(tmp_path):
    write_search(tmp_path, tree("d-1"))
    part(tmp_path, "1/2", "d-2")
    assert names(union(tmp_path)[0]) == ["d-1"]
    (tmp_path / "search.json").unlink()
    assert union(tmp_path)[1] == ["2/2"]
    assert union(tmp_path / "elsewhere") == ([], [])


def test_finished_trees_are_copied_and_none_is_overwritten(tmp_path):
    first = part(tmp_path, "1/2", "d-1", "d-3", ended=False)
    out = part(tmp_path, "1/3", "d-1")
    (out / "trees" / "d-1.json").write_text("{}")
    assert copy_finished_trees(tmp_path, out, ["d-1", "d-2", "d-3"]) == 1
    assert (out / "trees" / "d-1.json").read_text() == "{}"
    assert (out / "trees" / "d-3.json").read_bytes() == (first / "trees" / "d-3.json").read_bytes()
    assert copy_finished_trees(tmp_path, out, ["d-1", "d-2", "d-3"]) == 0


def test_the_usage_of_each_part(tmp_path):
    part(tmp_path, "2/2", "d-2")
    part(tmp_path, "1/2", ended=False)
    assert {which: usage["calls"] for which, usage in usage_of_parts(tmp_path).items()} == {"2/2": {"judge": 1234}}


def test_parts_are_one_search_in_run_folders_of_their_own():
    cells = [composed(f"data.shard={which}") for which in ("1/1", "1/2", "2/2")]
    assert len({RESULTS["search"].key(cfg) for cfg in cells}) == 1
    names = [cell_name(cfg) for cfg in cells]
    assert names[1:] == [f"{names[0]}-shard1of2", f"{names[0]}-shard2of2"]


SMALL = ("data.seed_dialogues=3", "mcts.min_iterations=1", "mcts.max_iterations=1")


def run(folder: Path, shared: Path, *line: str) -> subprocess.CompletedProcess:
    dirs = (f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep", f"shared_dir={shared}")
    return forking.run([sys.executable, "run.py", *line, *SMALL, *dirs], 400, cwd=ROOT)


def left(folder: Path, stage: str) -> Path:
    return Path(json.loads((folder / "run" / "stages.json").read_text())[stage])


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_parts_on_several_workers_give_the_trees_and_the_dataset_of_one_search(tmp_path, launcher):
    shared = tmp_path / "shared"
    first = run(tmp_path, shared, "stages=[search]", "data.shard=1/2")
    assert first.returncode == 0, first.stderr
    early = run(tmp_path, shared, "stages=[dataset]")
    assert early.returncode == 2
    assert "2/2" in early.stderr.splitlines()[-1] and "'stages=[search]'" in early.stderr and "data.shard=2/2" in early.stderr

    both = run(tmp_path, shared, "-m", "stages=[search]", "data.shard=1/2,2/2", f"hydra/launcher={launcher}")
    assert both.returncode == 0, both.stderr
    assert run(tmp_path, shared, "stages=[dataset]").returncode == 0
    union_of_parts = left(tmp_path, "dataset")

    alone = run(tmp_path / "alone", tmp_path / "alone", "stages=[search,dataset]")
    assert alone.returncode == 0, alone.stderr
    assert left(tmp_path / "alone", "dataset").name == union_of_parts.name  # a hash of the trees and of how they are read
    for file in left(tmp_path / "alone", "dataset").rglob("*.json*"):
        if file.name != "done.json":
            assert file.read_bytes() == (union_of_parts / file.relative_to(left(tmp_path / "alone", "dataset"))).read_bytes()

    # The whole search asked for after its parts: nothing is searched again.
    whole = run(tmp_path, shared, "stages=[search]")
    assert "took over 3 trees" in whole.stdout and left(tmp_path, "search").parent == shared / "search"
    summary = json.loads((left(tmp_path, "search") / "search.json").read_text())
    assert summary["trees"] == 3 and summary["usage"]["calls"] == {} and set(summary["parts"]) == {"1/2", "2/2"}
    assert (left(tmp_path, "search") / "report.html").exists()
