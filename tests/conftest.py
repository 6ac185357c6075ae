import json
import signal

import pytest

# A shell's background job ignores Ctrl-C, and so would every process that it starts: those of the tests are to heed it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def raw_file(tmp_path):
    """Writes records as the JSON list of a raw corpus file; returns its path."""

    def write(records):
        path = tmp_path / "raw.json"
        path.write_text(json.dumps(records), encoding="utf-8")
        return path

    return write
