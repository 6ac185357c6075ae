"""A server that the run starts itself: what it is started with, how it is waited for, and that it ends with the run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from project import ROOT, composed, run_py

from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn
from cso_lab.core.strategies import EXTES
from cso_lab.generation.generate import generate
from cso_lab.llm.own_server import check_server, own_server
from cso_lab.pipeline.check import check

PROGRAM = Path(__file__).parents[1] / "fake_server.py"
OWN = ("generation.engine=server", "serving=transformers")
SECRET = "sk-do-not-print-me-0123456789"


def serving(mode="good", **changes) -> dict:
    """The node of a server whose program is the tests' own."""
    node = OmegaConf.to_container(composed("serving=vllm").serving, resolve=True)
    arguments = [str(PROGRAM), "{port}", "{model}", mode]
    return node | {"name": "fake", "command": sys.executable, "arguments": arguments, "timeout": 60.0} | changes


def started(tmp_path, node, use=lambda server: None):
    """What `use` makes of the started server."""
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    values = {"model": folder, "name": "cell", "dtype": "float32", "device": "cpu"}
    with own_server(node, values, tmp_path / "server.log") as server:
        return use(server)


def processes(tmp_path) -> list[int]:
    """The server and its worker."""
    return [int(number) for number in (tmp_path / "pids").read_text(encoding="utf-8").split()]


def is_alive(number: int) -> bool:
    status = Path(f"/proc/{number}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come to that"
        time.sleep(0.05)


def test_a_server_is_there_until_it_is_not_needed_and_gets_no_key(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = started(tmp_path, serving(), lambda server: [server, *map(is_alive, processes(tmp_path))])
    assert server[0].model == "cell" and server[0].api_base.startswith("http://127.0.0.1:") and server[1:] == [True, True]
    wait_for(lambda: not any(map(is_alive, processes(tmp_path))), 20)
    log = (tmp_path / "server.log").read_text(encoding="utf-8")
    assert "loading" in log and SECRET not in log


def test_servers_of_runs_side_by_side_have_ports_of_their_own(tmp_path):
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    first, second = folders
    addresses = started(first, serving(), lambda one: started(second, serving(), lambda other: {one.api_base, other.api_base}))
    assert len(addresses) == 2


def test_a_server_that_ends_or_never_answers_is_one_line_with_the_last_of_its_log(tmp_path):
    log = f"last line of its log {tmp_path}/server.log: "
    with pytest.raises(UserError) as error:
        started(tmp_path, serving("dying"))
    assert str(error.value) == f"serving=fake: the server ended with exit code 3, {log}for the weights before it was ready"
    with pytest.raises(UserError) as error:
        started(tmp_path, serving("deaf", timeout=1.5))
    assert "/health within 1.5 s (serving.timeout); " + log + "loading" in str(error.value)
    wait_for(lambda: not any(map(is_alive, processes(tmp_path))), 20)


def test_what_cannot_be_started_is_said_before_anything_is(tmp_path):
    with pytest.raises(
        UserError, match="serving=fake: there is no command 'vlm' here: pip install vllm.*or give serving.command=PATH"
    ):
        check_server(serving(command="vlm"))
    with pytest.raises(UserError, match="serving=fake needs no_such_module, not installed here: pip install vllm"):
        check_server(serving(requires=["json", "no_such_module"]))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            UserError, match=f"serving.port={port}: 127.0.0.1:{port} is in use; give another, or serving.port=null"
        ):
            check_server(serving(port=port))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([*OWN, "serving.arguments=['{modle}']"], "{modle} is no field: valid are {model}, {name}, {port}, {dtype}, {device}"),
        (["serving=vllm"], "serving=vllm starts a server that nobody asks: give generation.engine=server"),
        ([*OWN, "generation.client.api_base=http://127.0.0.1:1/v1"], "is of a server that runs already"),
        (["backbone=gpt_4o", "algo=base", "serving=vllm"], "backbone=gpt_4o is an API model: give serving=none"),
        ([*OWN, "serving.port=0"], "serving.port=0: "),
    ],
)
def test_what_does_not_fit_together_is_refused(line, expected):
    with pytest.raises(UserError) as error:
        check(composed(*line))
    assert expected in str(error.value)


DIALOGUE = Dialogue("a", "scene", "description", (Turn(SEEKER, "I feel low"), Turn(SUPPORTER, "That is hard.", EXTES.names[0])))


def cell(tmp_path, *overrides, mode="good"):
    program = [f"serving.command={sys.executable}", f"serving.arguments=[{PROGRAM},'{{port}}','{{model}}',{mode}]"]
    line = ["backbone=tiny_llama", "algo=base", f"shared_dir={tmp_path}/shared", "hardware=cpu", "training.dtype=float32"]
    return composed(*line, *OWN, *program, "serving.request_model='{name}'", "serving.requires=[]", *overrides)


@pytest.mark.long
def test_a_cell_is_predicted_by_the_server_that_it_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # is for other machines
    out = tmp_path / "run"
    out.mkdir()
    generate(cell(tmp_path), [DIALOGUE], EXTES, None, out, served_identity="this one")
    (line,) = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["response"] == "run, 2 messages"
    log = (out / "server.log").read_text(encoding="utf-8")
    assert all(f"'{name}'" in log for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"))
    assert not (out / "served").exists() and not any(map(is_alive, processes(out)))
    usage = json.loads((out / "usage.json").read_text(encoding="utf-8"))["usage"]
    assert (usage["calls"], usage["unpriced"]) == ({"supporter": 1}, 0)


@pytest.mark.long
def test_a_server_that_ends_while_it_is_asked_says_why(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    more = Dialogue("b", "scene", "description", DIALOGUE.turns)
    cfg = cell(tmp_path, "generation.client.max_attempts=2", "generation.client.max_backoff=0.02", mode="brief")
    cfg.generation.client.max_concurrency = 1
    with pytest.raises(UserError, match=r"the server ended with exit code 4, last line of its log .*: out of memory"):
        generate(cfg, [DIALOGUE, more], EXTES, None, out, served_identity="this one")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_is_left_behind_however_the_run_ends(number, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    code = (
        "import json, sys, time; from pathlib import Path; from cso_lab.llm.own_server import own_server\n"
        "folder = Path(sys.argv[2]); values = dict(model=folder, name='cell', dtype='float32', device='cpu')\n"
        "with own_server(json.loads(sys.argv[1]), values, folder.with_name('server.log')):\n"
        "    folder.with_name('ready').touch(); time.sleep(600)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(serving()), str(folder)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    wait_for((tmp_path / "ready").exists)
    assert all(map(is_alive, processes(tmp_path)))
    os.kill(run.pid, number)
    run.wait(timeout=30)
    wait_for(lambda: not any(map(is_alive, processes(tmp_path))), 30)


@pytest.mark.long
def test_a_program_that_is_missing_is_named_before_the_search(tmp_path):
    line = ["backbone=tiny_llama", "generation.engine=server", "serving=vllm", "serving.command=no_such_program"]
    done = run_py(*line, f"hydra.run.dir={tmp_path}/run", f"shared_dir={tmp_path}/shared")
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: serving=vllm: there is no command 'no_such_program' here: pip install vllm")
    assert not (tmp_path / "shared" / "search").exists()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Where SmolLM2 is converted, once."""
    return tmp_path_factory.mktemp("shared")


@pytest.mark.long
def test_transformers_serve_replies_as_the_model_does_in_this_process(shared, tmp_path):
    """SmolLM2 with an adapter, trained for two steps: the server gets the merged weights, and the replies are the same, word by word."""
    line = ["backbone=smollm2", "algo=sft", f"shared_dir={shared}", "hardware=cpu", "training.dtype=float32"]
    line += ["data.seed_dialogues=1", "mcts.min_iterations=2", "mcts.max_iterations=2", "training.max_steps=2"]
    line += ["training.batch_size=2", "training.learning_rate=1e-3", "training.max_rows=4", f"hydra.run.dir={tmp_path}/run"]
    line += ["generation.max_turns=3", "generation.max_new_tokens=12", "generation.client.timeout=300"]

    def predicted(*engine) -> str:
        done = run_py(*line, *engine, timeout=600)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "run" / "predictions.jsonl").read_text(encoding="utf-8")

    here = predicted()
    trained = (tmp_path / "run" / "checkpoint" / "adapter_model.safetensors").stat().st_mtime_ns
    assert predicted(*OWN) == here and len(here.splitlines()) == 3
    assert (tmp_path / "run" / "checkpoint" / "adapter_model.safetensors").stat().st_mtime_ns == trained
    assert "POST /v1/chat/completions" in (tmp_path / "run" / "server.log").read_text(encoding="utf-8")
    assert "transformers, started by the run" in (tmp_path / "run" / "metrics.json").read_text(encoding="utf-8")


@pytest.mark.long
def test_a_search_whose_seeker_and_supporter_are_a_model_on_transformers_serve(shared, tmp_path):
    line = ["backbone=smollm2", f"shared_dir={shared}", "hardware=cpu", "generation.dtype=float32"]
    server = subprocess.Popen(
        [sys.executable, "-m", "cso_lab.pipeline.serve", *line], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        heading, roles = server.stdout.readline(), server.stdout.readline().split()
        assert "smollm2 is served" in heading and len(roles) == 3
        small = ["mcts.min_iterations=1", "mcts.max_iterations=1", "mcts.rollout_rounds=1", "mcts.extend_negatives=false"]
        small += ["data.seed_dialogues=1", "roles.seeker.max_tokens=8", "roles.supporter.max_tokens=8", "stages=[search]"]
        done = run_py("roles=transformers", *roles, *small, f"shared_dir={shared}", f"hydra.run.dir={tmp_path}", timeout=600)
        assert done.returncode == 0, done.stderr
    finally:
        server.send_signal(signal.SIGINT)
        said, _ = server.communicate(timeout=60)
    assert server.returncode == 0 and "the server has ended" in said
    (summary,) = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in shared.glob("search/*/search.json")
        if json.loads(file.read_text(encoding="utf-8"))["players"] == "transformers"
    ]
    assert (summary["trees"], summary["set_aside"]) == (1, {})
    assert summary["usage"]["calls"]["supporter"] >= 1 and summary["usage"]["calls"]["seeker"] >= 1
