"""A module that has another name now is answered with that name where a configuration or a user's own code names it."""

from importlib.util import find_spec

import pytest
from project import run_py

from cso_lab.config.moved_modules import MOVED, new_module


@pytest.mark.parametrize("module", sorted(set(MOVED.values())))
def test_every_new_name_is_a_module(module):
    assert find_spec(module)


def test_the_longest_of_the_old_names_is_answered():
    assert (
        new_module("No module named 'cso_lab.inspection.judge'") == "cso_lab.inspection.judge is cso_lab.analysis.llm_judge now"
    )
    assert new_module("No module named 'mine.inspection'") is None


def test_a_target_of_an_old_name_is_answered_with_the_new_one(tmp_path):
    done = run_py("decoding.method._target_=cso_lab.generation.refine.Plain", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("cso_lab.generation.refine is cso_lab.generation.decoding_strategies now")
