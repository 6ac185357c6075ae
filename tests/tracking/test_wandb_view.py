"""The W&B workspace, as it would be sent."""

import json
import socket
import subprocess
import sys

import pytest

from cso_lab.core.errors import UserError
from cso_lab.tracking.wandb_view import main


def sections(capsys, monkeypatch, *more):
    def refuse(*_):
        raise AssertionError("a dry run asks no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    main(["team/cso", "--dry-run", *more])
    view = json.loads(capsys.readouterr().out)
    assert (view["entity"], view["project"]) == ("team", "cso")
    return view, {section["name"]: section["panels"] for section in view["spec"]["section"]["panelBankConfig"]["sections"]}


def test_a_dry_run_prints_bars_curves_and_differences(capsys, monkeypatch):
    view, panels = sections(capsys, monkeypatch, "--group", "table9", "--name", "mine")
    assert view["displayName"] == "mine"
    bars = [(panel["viewType"], panel["config"]["metrics"]) for panel in panels["Preference and bias"]]
    assert bars == [("Bar Chart", ["summary_metrics.Q"]), ("Bar Chart", ["summary_metrics.B"])]
    differences = [panel["config"]["metrics"] for panel in panels["Ours minus the paper's"]]
    assert differences == [[f"summary_metrics.difference_to_paper/{metric}"] for metric in ("Q", "B", "Q_W", "R-L")]
    (loss, *_) = panels["Training"]
    assert (loss["config"]["xAxis"], loss["config"]["metrics"]) == ("train/step", ["train/loss"])
    conversations = [panel["config"]["metrics"] for panel in panels["Conversations"] if "metrics" in panel["config"]]
    assert ["summary_metrics.conversation/success"] in conversations and ["conversation_curve/intensity"] in conversations
    assert "table9" in json.dumps(view["spec"]["section"]["runSets"][0]["filters"])


def test_without_a_group_all_runs_are_shown(capsys, monkeypatch):
    view, _ = sections(capsys, monkeypatch)
    assert view["spec"]["section"]["runSets"][0]["filters"]["filters"] == []


@pytest.mark.parametrize("path", ["cso", "team/", "/cso", "a/b/c"])
def test_another_path_is_refused(path):
    with pytest.raises(UserError, match="expected ENTITY/PROJECT"):
        main([path, "--dry-run"])


def test_the_former_command_names_the_new_one():
    line = [sys.executable, "-m", "cso_lab.reporting.wandb_view", "team/cso"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "python -m cso_lab.tracking.wandb_view" in done.stderr
    assert len(done.stderr.splitlines()) == 1
