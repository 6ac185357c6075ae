import json

import pytest
from fakes import metrics


@pytest.fixture
def cell(tmp_path):
    """Makes a run folder with a metrics.json in it."""

    def make(name, **values):
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(metrics(**values)), encoding="utf-8")
        return folder

    return make
