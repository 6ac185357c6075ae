"""An error in a class of the user's own is one line with its cause, file and line; debug=true shows the whole traceback."""

import json
import os
import sys

import pytest
from outside import CHOICES, PARTS, TRAINERS, write_package
from project import composed, run_py

from cso_lab.config.error_messages import explain
from cso_lab.core.errors import UserError
from cso_lab.pipeline.check import check

IN_CALL = PARTS.replace("return scores[self.criterion] - 3.0", "return scores['X'] - 3.0")
# What the project's own reward is made with.
OTHERS = ("~mcts.reward.weights", "~mcts.reward.divisor", "~mcts.reward.bias")
SMALL = ("data.seed_dialogues=1", "mcts.min_iterations=1", "mcts.max_iterations=1")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes the package `mine`, importable here and in processes started from here; returns its module's file and the arguments."""

    def write(parts=PARTS, trainers=TRAINERS):
        conf = write_package(tmp_path, parts, trainers)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
        file = conf.parent / ("parts.py" if trainers == TRAINERS else "trainers.py")
        return file, (f"--config-dir={conf}", *SMALL, f"shared_dir={tmp_path}/shared")

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def line_of(file, text):
    """The number of the first line of a file that holds a text."""
    return next(number for number, line in enumerate(file.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("parts", "line", "expected"),
    [
        # in the constructor
        (PARTS, "Reward +mcts.reward.criterion=X", "KeyError: 'X'"),
        (PARTS, "Reward +mcts.reward.other=1", "unexpected keyword argument 'other'"),
        # in the module, which is why the class is not found
        ("import nothing_of_this_name\n" + PARTS, "Reward", "No module named 'nothing_of_this_name'"),
        (PARTS, "Rewrd", "cannot find mine.parts.Rewrd"),
    ],
)
def test_an_error_when_a_class_of_the_users_is_made_names_its_cause(package, parts, line, expected):
    file, _ = package(parts)
    with pytest.raises(UserError) as caught:
        check(composed(*OTHERS, *f"mcts.reward._target_=mine.parts.{line}".split()))
    message = str(caught.value)
    assert message.startswith("mcts.reward: ") and expected in message and "\n" not in message
    if "'X'" in expected:
        assert f"{file}, line {line_of(file, '[criterion]')}, in __init__" in message
    if "nothing_of_this_name" in expected:
        assert f"{file}, line 1" in message


def test_an_error_when_it_is_called_is_one_line_and_debug_shows_the_whole_traceback(package, tmp_path):
    file, arguments = package(IN_CALL)
    line = [*arguments, "mcts/reward=mine", "stages=[search]", f"hydra.run.dir={tmp_path}/run"]
    where = f"{file}, line {line_of(file, 'X')}, in __call__"
    done = run_py(*line)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "error: KeyError: 'X'" in done.stderr and where in done.stderr
    whole = run_py(*line, "debug=true")
    assert whole.returncode == 2 and "Traceback" in whole.stderr and "cso_lab/search/mcts.py" in whole.stderr
    assert whole.stderr.splitlines()[-1] == done.stderr.strip().splitlines()[-1]


def test_the_environment_asks_for_the_whole_traceback_as_hydra_has_it():
    whole = run_py("backbone=lama", env=dict(os.environ) | {"HYDRA_FULL_ERROR": "1"})
    assert whole.returncode == 2 and "Traceback" in whole.stderr and "did you mean 'llama'" in whole.stderr.splitlines()[-1]


def test_what_happened_while_a_user_error_was_handled_is_an_error_of_its_own():
    def fault():
        try:
            raise UserError("no such file")
        except UserError:
            return {}["ours"]

    with pytest.raises(KeyError) as caught:
        fault()
    assert explain(caught.value) is None
    with pytest.raises(ValueError) as caught:
        try:
            raise UserError("no such file")
        except UserError as error:
            raise ValueError from error
    assert str(explain(caught.value)) == "no such file"


def test_an_error_of_the_projects_own_code_is_no_error_of_the_users():
    from cso_lab.core.hashing import digest

    with pytest.raises(TypeError) as caught:
        digest({1: 0, "a": 0})  # keys that cannot be sorted
    assert explain(caught.value) is None


@pytest.mark.long
def test_a_failing_cell_of_a_sweep_says_so_too(package, tmp_path):
    file, arguments = package(IN_CALL)
    line = ["-m", *arguments, "mcts/reward=mine,paper", "stages=[search]", f"hydra.sweep.dir={tmp_path}/sweep"]
    done = run_py(*line)
    reasons = [json.loads(found.read_text())["reason"] for found in tmp_path.glob("sweep/*/failed.json")]
    assert len(reasons) == 1 and reasons[0].startswith("KeyError: 'X'") and f"{file}, line {line_of(file, 'X')}" in reasons[0]
    assert done.returncode == 1 and reasons[0] in done.stderr and "Traceback" not in done.stderr
    assert "Traceback" in run_py(*line, "debug=true").stderr


@pytest.mark.long
def test_a_process_of_a_training_says_so_too(package, tmp_path):
    file, arguments = package(trainers=TRAINERS.replace("super().log(", "logs['X']; super().log("))
    line = [
        *arguments,
        *CHOICES,
        "mcts/reward=paper",
        "data.seed_dialogues=6",
        "mode=lora",
        "hardware=cpu",
        "hardware.processes=2",
    ]
    line += ["training.batch_size=4", "training.max_steps=2", "stages=[search,dataset,train]", f"hydra.run.dir={tmp_path}/run"]
    done = run_py(*line, timeout=500)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "KeyError: 'X'" in last and f"{file}, line {line_of(file, 'X')}, in log" in last
    whole = run_py(*line, "debug=true", timeout=500).stderr
    assert "Traceback" in whole and "cso_lab/training/train.py" in whole
