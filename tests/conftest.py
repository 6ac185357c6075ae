"""Fixtures that tests of several packages use."""

import json
import signal

import pytest

# A shell's background job and the processes it starts ignore Ctrl-C. Processes that tests start must not.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def raw_file(tmp_path):
    """A function that writes records to a raw corpus file, a JSON list, and returns its path."""

    def write(records):
        path = tmp_path / "raw.json"
        path.write_text(json.dumps(records), encoding="utf-8")
        return path

    return write
