"""Where the stages of a run have their files, also after run and shared folders were copied together."""

import shutil

from cso_lab.core.files import write_json
from cso_lab.core.run_folders import STAGES_FILE, stage_folder


def test_a_stage_is_where_stages_json_says_or_near_a_copied_run(tmp_path):
    search = tmp_path / "old" / "shared" / "search" / "abc"
    search.mkdir(parents=True)
    write_json(tmp_path / "old" / "runs" / "run" / STAGES_FILE, {"search": str(search), "train": "nowhere"})
    run = tmp_path / "old" / "runs" / "run"
    assert stage_folder(run, "search") == search
    assert stage_folder(run, "train") is None and stage_folder(run, "dataset") is None
    assert stage_folder(tmp_path, "search") is None
    shutil.move(tmp_path / "old", tmp_path / "new")
    copied = tmp_path / "new" / "runs" / "run"
    assert stage_folder(copied, "search") == tmp_path / "new" / "shared" / "search" / "abc"
