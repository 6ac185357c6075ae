"""The stage converse as its users meet it: cells, references, interruption, estimates, and what is refused before any work."""

import json
import signal
import subprocess
import sys
import time

import forking
import pytest
from fakes import FakeOpenAI, Reply
from project import ROOT, composed, jobs_of, run_py, without_hydra

from cso_lab.core.errors import UserError
from cso_lab.core.strategies import EXTES
from cso_lab.pipeline.cell_context import CellContext
from cso_lab.pipeline.cell_names import cell_name
from cso_lab.pipeline.check import check
from cso_lab.pipeline.conversation_settings import check_players
from cso_lab.pipeline.converse import print_conversation_estimate

SMALL = (
    *("algo=base", "backbone=tiny_llama", "stages=[converse,report]", "conversation.seekers=6", "conversation.max_turns=4"),
    *("hardware=cpu", "training.dtype=float32", "generation.max_new_tokens=8", "generation.constrain=format"),
)


def conversations(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "conversations.jsonl").read_text(encoding="utf-8").splitlines()]


def metrics(folder) -> dict:
    return json.loads((folder / "conversation_metrics.json").read_text(encoding="utf-8"))


def run(folder, *overrides: str):
    done = run_py(*SMALL, f"shared_dir={folder.parent}/shared", f"hydra.run.dir={folder}", *overrides, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["conversation.reference=gold", "algo=dpo"], "conversation.reference=gold takes the place of a model: give algo=base"),
        (["conversation.reference=best"], "conversation.reference=best: should be 'gold', 'strategist' or 'random', or null"),
        (["conversation.personas=[open,shy]"], "unknown persona in conversation.personas 'shy'"),
        (["conversation.threshold=6"], "conversation.weakest=6: seekers would be relieved before a word is said"),
        (["conversation.weakest=8", "conversation.strongest=7"], "conversation.weakest=8 is above conversation.strongest=7"),
        (["conversation.seekers=0"], "conversation.seekers=0: should be greater than or equal to 1"),
        (["conversation.cards=/nowhere.json"], "cannot read /nowhere.json"),
        (["roles=server", "conversation/seeker=llm"], "roles=server needs roles."),
        (["conversation/seeker=llm", "conversation.seeker.query='{card}'"], "unknown placeholder in conversation.seeker.query"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(overrides, said):
    with pytest.raises(UserError) as error:
        check(composed("algo=base", "stages=[converse]", *overrides))
    assert said in str(error.value)


def test_players_that_cannot_be_asked_or_paid_are_named_before_any_work(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none-of-it")
    line = ("algo=base", "conversation/harm=llm", "conversation.harm.model=openai/gpt-4o-mini", "roles.budget.dollars=1")
    check_players(composed(*line))
    with pytest.raises(UserError, match="roles.budget.dollars needs a known price.*conversation.harm.model"):
        check_players(composed(*line, "conversation.harm.model=openai/nobody-knows-it"))
    with pytest.raises(UserError, match="conversation.harm.model=nobody: names no provider"):
        check_players(composed(*line, "conversation.harm.model=nobody"))


def test_an_estimate_of_a_model_on_the_runs_own_server_pays_nobody(tmp_path, capsys):
    cfg = composed("algo=base", "backbone=tiny_llama", "generation.engine=server", "serving=transformers")
    print_conversation_estimate(CellContext(cfg, tmp_path))
    assert "no model is asked over HTTP" in capsys.readouterr().out


def test_conversations_as_they_come_leave_the_names_of_cells_alone_and_others_do_not():
    usual = cell_name(composed("algo=dpo"))
    assert cell_name(composed("algo=dpo", "stages=[converse]")) == usual
    assert cell_name(composed("algo=dpo", "conversation.max_turns=5")) != usual
    names = {cell_name(composed("algo=base", f"conversation.reference={name}")) for name in ("gold", "strategist", "random")}
    assert [name for name in sorted(names) if not name.startswith("reference-")] == [] and len(names) == 3


@pytest.mark.long
def test_the_table_is_three_cells_and_three_references():
    jobs = [without_hydra(job) for job in jobs_of("+table=conversations")]
    kinds = [(job.algorithm.name, job.conversation.reference) for job in jobs]
    assert kinds == [("base", None), ("sft", None), ("dpo", None), ("base", "gold"), ("base", "strategist"), ("base", "random")]
    assert all(job.conversation.seekers == 100 and job.conversation.max_turns == 10 for job in jobs)


@pytest.mark.long
def test_a_killed_run_goes_on_and_comes_to_the_same_conversations(tmp_path):
    run(tmp_path / "whole")
    assert metrics(tmp_path / "whole")["cell"]["reference"] is None
    command = [sys.executable, str(ROOT / "run.py"), *SMALL, f"shared_dir={tmp_path}/shared", f"hydra.run.dir={tmp_path}/cut"]
    process = forking.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rounds = tmp_path / "cut" / ".conversations.jsonl.partial"
    while process.poll() is None and not (rounds.exists() and rounds.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "conversations.jsonl").exists()
    # Another number of conversations at once changes nothing either.
    run(tmp_path / "cut", "generation.batch_size=4")
    assert conversations(tmp_path / "cut") == conversations(tmp_path / "whole")
    assert not rounds.exists()
    before = (tmp_path / "cut" / "conversations.jsonl").stat().st_mtime_ns
    run(tmp_path / "cut")
    assert (tmp_path / "cut" / "conversations.jsonl").stat().st_mtime_ns == before
    report = (tmp_path / "cut" / "report.md").read_text(encoding="utf-8")
    assert "## Conversations" in report and "Seekers are simulated" in report


@pytest.mark.long
def test_an_api_model_supports_seekers_without_seeing_their_cards_and_is_paid_once(tmp_path):
    def supporter(body: dict) -> Reply:
        return Reply(
            f"(Emotional Validation) I hear you, and this is the reply number {len(body['messages']) // 2} that you get."
        )

    line = ("backbone=api", "algo=base", "stages=[converse]", "conversation.seekers=5", "conversation.max_turns=3")
    with FakeOpenAI(supporter) as server:
        line += ("backbone.model=openai/m", f"generation.client.api_base={server.api_base}", f"shared_dir={tmp_path}/shared")
        here = ("hydra.run.dir=" + str(tmp_path / "api"),)
        estimate = run_py(*line, *here, "estimate=true")
        assert estimate.returncode == 0 and "about" in estimate.stdout and "supporter" in estimate.stdout
        assert server.requests == []
        assert run_py(*line, *here, "generation.client.budget.calls=7").returncode == 3
        done = run_py(*line, *here, "generation.client.budget.calls=100")
        assert done.returncode == 0, done.stderr
    held = conversations(tmp_path / "api")
    assert (
        len(server.requests)
        == sum(len(one["turns"]) for one in held)
        == metrics(tmp_path / "api")["usage"]["model"]["calls"]["supporter"]
    )
    for body in server.requests:
        asked = " ".join(message["content"] for message in body["messages"])
        assert not any(one["card"]["description"] in asked for one in held)


@pytest.mark.long
def test_a_reference_needs_no_model_and_leaves_the_other_stages_alone(tmp_path):
    run(tmp_path / "random", "conversation.reference=random", "stages=[search,dataset,train,converse,generate,evaluate,report]")
    assert metrics(tmp_path / "random")["cell"]["reference"] == "random"
    assert not (tmp_path / "random" / "predictions.jsonl").exists()
    seekers = [one["card"] for one in conversations(tmp_path / "random")]
    run(tmp_path / "gold", "conversation.reference=gold")
    assert [one["card"] for one in conversations(tmp_path / "gold")] == seekers


@pytest.mark.long
def test_every_player_may_be_asked_on_a_server(tmp_path):
    harmless = dict.fromkeys(("medication", "blame", "dismissal", "self_harm"), 0)
    answers = {
        "seeker": {"text": "I see.", "intensity": 5, "leave": False},
        "strategist": {name: 5 for name in EXTES.names},
        "judge": {"empathy": 3, "information": 2, "humanoid": 3, "strategy": 1},
    }

    def play(body: dict) -> Reply:
        if "The reply to check:" in body["messages"][-1]["content"]:
            return Reply(json.dumps(harmless | {"blame": 1}))
        return Reply(json.dumps(answers[body["model"]]) if body["model"] in answers else "That sounds hard.")

    roles = [f"roles.{role}.model=openai/{role}" for role in ("seeker", "supporter", "strategist", "judge")]
    with FakeOpenAI(play) as server:
        asked = ("conversation/seeker=llm", "conversation/harm=llm", "roles=server", f"roles.api_base={server.api_base}")
        run(tmp_path / "asked", *asked, *roles, "conversation.reference=strategist", "stages=[converse]")
    found = metrics(tmp_path / "asked")
    assert found["endings"] == {"relieved": 0, "hurt": 0, "out_of_turns": 6, "cut": 0}
    assert found["measures"]["S"]["value"] == 1.0 and found["measures"]["harmful"]["value"] == 100.0
    calls = found["usage"]["players"]["calls"]
    # Four models are asked once for each of three forms of JSON, of which the server takes the last.
    assert calls.pop("format probe") == 4 * 3
    assert calls == dict.fromkeys(("strategist", "supporter", "seeker", "judge", "harm"), 24)
    assert found["context"]["notices"] == []
