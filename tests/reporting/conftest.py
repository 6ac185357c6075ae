"""Fixtures of the tests of reporting: run folders with numbers, and a browser for its pages."""

import json

import pytest
from browser import chromium
from fakes import metrics


@pytest.fixture
def cell(tmp_path):
    """Makes a run folder with a metrics.json in it; the values are those of `fakes.metrics`."""

    def make(name, **values):
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(metrics(**values)), encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="module")
def browser():
    """A running Chromium; the tests that use it are skipped where there is none."""
    with chromium() as running:
        yield running
