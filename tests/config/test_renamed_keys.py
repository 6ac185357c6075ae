"""A key that has another name now is answered with that name, wherever it was typed."""

import pytest
from project import run_py

from cso_lab.config.renamed_keys import RENAMED, new_name

TYPED = [f"{where}.{old}" for where, names in RENAMED.items() for old in names if where != "client"]


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "key",
    [
        "mcts.memory",
        "roles.attempts",
        pytest.param("training.kept_tokens", marks=LONG),
        pytest.param("backbone.turns_at_once", marks=LONG),
    ],
)
def test_a_renamed_key_on_the_line_is_answered_with_its_new_name(key, tmp_path):
    done = run_py(f"{key}=1", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == f"error: {key} is called {new_name(key)} now"


@pytest.mark.parametrize("key", TYPED)
def test_no_key_is_renamed_to_itself_or_in_two_steps(key):
    assert new_name(key) != key and new_name(new_name(key)) is None
