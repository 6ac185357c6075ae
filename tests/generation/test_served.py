"""API models and served checkpoints as cells, over real HTTP to a server on loopback."""

import json
import multiprocessing
import os
import re
import signal
import time
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_batches import FakeBatches
from fakes import FakeOpenAI, Reply, failure
from loopback import FAULTS, REFUSALS
from project import composed, run_py

from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Dialogue, Turn, prompt_messages
from cso_lab.core.strategies import EXTES
from cso_lab.evaluation.score import evaluate_predictions, load_predictions
from cso_lab.generation.estimate import estimate_generation
from cso_lab.generation.generate import generate
from cso_lab.llm.budget import BudgetSpent

SECRET = "sk-do-not-print-me-0123456789"
API = ("backbone=api", "backbone.model=openai/tiny", "algo=base")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def dialogue(name, turns):
    pairs = [
        (Turn(SEEKER, f"{name}, I feel low {i}"), Turn(SUPPORTER, f"That is hard {i}.", EXTES.names[i])) for i in range(turns)
    ]
    return Dialogue(name, "scene", "description", tuple(turn for pair in pairs for turn in pair))


DIALOGUES = [dialogue("a", 3), dialogue("b", 2)]


@cache
def config(*overrides):
    return composed(*API, "generation.client.max_backoff=0.02", *overrides)


def served(folder: Path, server: FakeOpenAI, *overrides, dialogues=DIALOGUES) -> list[dict]:
    """The predictions of the server's model."""
    folder.mkdir(exist_ok=True)
    cfg = config(*overrides).copy()
    cfg.generation.client.api_base = server.api_base
    generate(cfg, dialogues, EXTES, None, folder, training=[dialogue("t", 2)])
    return lines(folder / "predictions.jsonl")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def usage(folder: Path) -> dict:
    return json.loads((folder / "usage.json").read_text(encoding="utf-8"))


def last(body: dict) -> str:
    """The last thing said in a request."""
    return body["messages"][-1]["content"]


def echo(body: dict) -> Reply:
    return Reply(f"(Affirmation) You said: {last(body)}")


def test_a_cell_of_an_api_model(tmp_path):
    with FakeOpenAI(echo) as server:
        found = served(tmp_path, server, "generation.max_new_tokens=40")
    assert [(row["dialogue"], row["turn"]) for row in found] == [("a", 1), ("a", 3), ("a", 5), ("b", 1), ("b", 3)]
    assert found[1] == {
        "dialogue": "a",
        "turn": 3,
        "gold_strategy": EXTES.names[1],
        "gold_response": "That is hard 1.",
        "strategy": "Affirmation",
        "response": "You said: a, I feel low 1",
        "raw": "(Affirmation) You said: a, I feel low 1",
    }
    bodies = {last(body): body for body in server.requests}
    assert len(server.requests) == len(bodies) == 5
    body = bodies["a, I feel low 1"]
    assert body["messages"] == prompt_messages(DIALOGUES[0].turns[:3], EXTES)
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("tiny", 0.0, 40)
    used = usage(tmp_path)["usage"]
    assert (used["calls"], used["prompt_tokens"], used["completion_tokens"]) == ({"supporter": 5}, 35, 15)
    assert len(lines(tmp_path / "calls.jsonl")) == 5


def test_a_model_without_a_system_role_gets_the_system_prompt_with_the_first_turn(tmp_path):
    with FakeOpenAI(echo) as server:
        served(tmp_path, server, "backbone.system_role=false", dialogues=[dialogue("a", 1)])
    (message,) = server.requests[0]["messages"]
    system, user = prompt_messages(DIALOGUES[0].turns[:1], EXTES)
    assert message == {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}


def test_seeds_of_a_greedy_model_do_not_follow_the_runs_and_those_of_a_sampled_one_do(tmp_path):
    def seeds(seed, temperature):
        with FakeOpenAI(echo) as server:
            served(tmp_path / f"{seed} {temperature}", server, f"seed={seed}", f"generation.temperature={temperature}")
        return sorted(body["seed"] for body in server.requests)

    assert seeds(0, 0.0) == seeds(1, 0.0)
    sampled = seeds(0, 0.7)
    assert sampled != seeds(1, 0.7) and len(set(sampled)) == 5


def faulty(times: int):
    """Every question meets each of the faults of `loopback` but the slow one, so many in all, before its answer."""
    asked, kinds = Counter(), [reply for name, reply in FAULTS.items() if name != "hanging"]

    def reply(body):
        asked[last(body)] += 1
        number = asked[last(body)] + len(last(body)) * 3
        return kinds[number % len(kinds)] if asked[last(body)] <= times else echo(body)

    return reply


def test_faults_change_no_prediction(tmp_path):
    with FakeOpenAI(echo) as server:
        undisturbed = served(tmp_path / "undisturbed", server)
    with FakeOpenAI(faulty(3)) as server:
        assert served(tmp_path / "disturbed", server) == undisturbed
    assert len(server.requests) == 20
    assert usage(tmp_path / "disturbed")["usage"]["failed_attempts"] == 15


@pytest.mark.parametrize("silent", [pytest.param(reply, id=name) for name, reply in {"empty": Reply(""), **REFUSALS}.items()])
def test_a_reply_without_words_is_unparsed_and_is_not_asked_for_again(silent, tmp_path):
    def mostly(body):
        return silent if last(body) == "a, I feel low 1" else echo(body)

    with FakeOpenAI(mostly) as server:
        found = served(tmp_path, server, "generation.client.max_attempts=3")
        asked = len(server.requests)
        (tmp_path / "predictions.jsonl").unlink()
        again = served(tmp_path, server, "generation.client.max_attempts=3")
        # An empty reply has been paid for; a request that was refused has not, and costs a request to find out about.
        replied = "choices" in (silent.body or {"choices": []})
        assert len(server.requests) - asked == (0 if replied else 1)
    assert asked == 4 + (3 if replied else 1)
    assert [row["strategy"] for row in found] == ["Affirmation", None, "Affirmation", "Affirmation", "Affirmation"]
    assert found[1]["raw"] == found[1]["response"] == "" and again == found
    assert sum(usage(tmp_path)["without_words"].values()) == 1


def test_a_model_that_answers_nothing_has_no_predictions(tmp_path):
    with FakeOpenAI(REFUSALS["400"]) as server:
        with pytest.raises(UserError, match="openai/tiny answered none of 5 questions.*content management policy"):
            served(tmp_path, server)
    assert not (tmp_path / "predictions.jsonl").exists()


def test_what_nobody_could_be_asked_is_no_prediction_and_is_asked_by_the_next_run(tmp_path):
    down = [True]

    def reply(body):
        return failure(503, "overloaded") if down[0] and last(body) == "b, I feel low 0" else echo(body)

    with FakeOpenAI(reply) as server:
        with pytest.raises(UserError, match="1 of 5 questions got no answer.*overloaded.*the same command"):
            served(tmp_path, server, "generation.client.max_attempts=2")
        assert not (tmp_path / "predictions.jsonl").exists() and "1 of 5" in usage(tmp_path)["stopped"]
        down[0] = False
        asked = len(server.requests)
        found = served(tmp_path, server, "generation.client.max_attempts=2")
        assert [last(body) for body in server.requests[asked:]] == ["b, I feel low 0"]
    assert len(found) == 5 and usage(tmp_path)["stopped"] is None


@pytest.mark.parametrize(("decoding", "rounds"), [("direct_refine", 2), ("self_refine", 3), ("with_example", 1)])
def test_decoding_strategies_ask_the_server_round_by_round(decoding, rounds, tmp_path):
    with FakeOpenAI(lambda body: Reply(f"(Affirmation) {len(body['messages'])}")) as server:
        found = served(tmp_path, server, f"decoding={decoding}")
    assert len(server.requests) == 5 * rounds
    # system prompt, history, and two messages more a round
    assert [row["response"] for row in found] == [str(row["turn"] + 1 + 2 * (rounds - 1)) for row in found]
    with_example = ["t, I feel low 0" in body["messages"][0]["content"] for body in server.requests]
    assert all(with_example) if decoding == "with_example" else not any(with_example)


def test_two_turns_with_the_same_prompt_are_two_questions(tmp_path):
    twins = [dialogue("a", 1), Dialogue("b", "other", "other", dialogue("a", 1).turns)]
    with FakeOpenAI(echo) as server:
        found = served(tmp_path, server, dialogues=twins)
        assert len(server.requests) == 2
        (tmp_path / "predictions.jsonl").unlink()
        assert served(tmp_path, server, dialogues=twins) == found and len(server.requests) == 2


MANY = [dialogue(f"d{i}", 8) for i in range(5)]
SPAWN = multiprocessing.get_context("spawn")


def serving(folder: Path, api_base: str) -> None:
    """`served` in a process of its own."""
    os.environ.pop("OPENAI_API_KEY", None)
    cfg = config("decoding=direct_refine", "generation.client.max_concurrency=4").copy()
    cfg.generation.client.api_base = api_base
    generate(cfg, MANY, EXTES, None, folder)


@pytest.mark.long
def test_killed_twice_no_call_is_paid_for_twice(tmp_path):
    def slowly(body):
        return Reply(f"(Affirmation) {last(body)[:20]}", delay=0.01)

    quick = ("decoding=direct_refine", "generation.client.max_concurrency=4")
    with FakeOpenAI(slowly) as server:
        undisturbed = served(tmp_path / "undisturbed", server, *quick, dialogues=MANY)
        assert len(server.requests) == 80
    folder = tmp_path / "killed"
    folder.mkdir()
    with FakeOpenAI(slowly) as server:
        for goal in (15, 55):  # in the first round, and in the second
            process = SPAWN.Process(target=serving, args=(folder, server.api_base))
            process.start()
            while process.is_alive() and len(server.requests) < goal:
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            assert process.exitcode == -signal.SIGKILL
            whole = [line for line in (folder / "calls.jsonl").read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            paid, made = {json.loads(line)["seed"] for line in whole}, len(server.requests)
            assert len(paid) > 5
        assert served(folder, server, *quick, dialogues=MANY) == undisturbed
        assert not paid & {body["seed"] for body in server.requests[made:]}
    assert len(server.requests) <= 80 + 2 * 4  # those under way when it was killed
    assert usage(folder)["usage"]["calls"] == {"supporter": 80}


def test_a_budget_stops_and_goes_on_when_it_is_raised(tmp_path):
    with FakeOpenAI(echo) as server:
        with pytest.raises(BudgetSpent, match=r"generation\.client\.budget\.calls=3 is spent: 3 of 5 questions are answered"):
            served(tmp_path, server, "generation.client.budget.calls=3", "generation.client.max_concurrency=1")
        assert usage(tmp_path)["usage"]["calls"] == {"supporter": 3}
        assert len(served(tmp_path, server, "generation.client.budget.calls=5")) == 5 == len(server.requests)


def test_predictions_by_batches_are_those_of_single_calls_round_by_round(tmp_path):
    with FakeOpenAI(echo) as server:
        one_by_one = served(tmp_path / "one by one", server, "decoding=direct_refine")
    in_batches = ("generation.client.batch=true", "generation.client.batch_poll=0.02")
    with FakeOpenAI(failure(403, "in batches only"), batches=FakeBatches(echo)) as server:
        assert served(tmp_path / "batches", server, "decoding=direct_refine", *in_batches) == one_by_one
        assert [len(lines) for lines in server.batches.lines] == [5, 5] and not server.requests
    assert usage(tmp_path / "batches")["usage"] == usage(tmp_path / "one by one")["usage"]


def test_the_estimate_of_a_cell_on_a_server_is_what_it_then_asks(tmp_path):
    with FakeOpenAI(echo) as server:
        served(tmp_path, server, "decoding=direct_refine")
    asked = config("decoding=direct_refine")
    line = estimate_generation(asked, DIALOGUES, EXTES, ())
    assert (
        line.startswith(f"{len(server.requests)} calls to openai/tiny, about ") and "price of openai/tiny is not known" in line
    )
    priced = estimate_generation(
        config("backbone.model=openai/gpt-4o", "generation.max_new_tokens=5"), DIALOGUES * 99, EXTES, ()
    )
    assert re.search(
        r"495 calls to openai/gpt-4o, .* \+ 2,475 tokens, \$0\.\d\d \(\$0\.\d\d with generation\.client\.batch=true\)", priced
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["generation.client.budget.dollars=1"], r"generation\.client\.budget\.dollars needs a known price"),
        (["generation.client.api_key_env=NO_SUCH_KEY"], r"generation\.client\.api_key_env names NO_SUCH_KEY"),
        (["backbone.model=simulated/seeker", "generation.client.batch=true"], r"simulated/seeker .* has no batches here"),
        (["backbone.model=tiny"], r"generation\.client\.model=tiny: names no provider"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is(overrides, message, tmp_path):
    with FakeOpenAI(echo) as server:
        with pytest.raises(UserError, match=message):
            served(tmp_path, server, *overrides)
    assert server.requests == []


@pytest.mark.parametrize("backbone", ["tiny_llama", "tiny_gemma"])
def test_a_served_checkpoint_reads_what_it_would_read_here(backbone, tmp_path, monkeypatch):
    """Token by token, once the server has applied the tokenizer's own chat template, as vLLM does. The weights are of no interest."""
    from cso_lab.generation import local
    from cso_lab.training.backbone import load_tokenizer

    # One dialogue is too long for the prompt, so that its oldest turns go.
    line = [f"backbone={backbone}", "algo=base", f"shared_dir={tmp_path}/shared", "generation.max_prompt_length=500"]
    line += ["hardware=cpu", "training.dtype=float32", "decoding=direct_refine"]
    dialogues = [dialogue("a", 2), dialogue("b", 8)]
    tokenizer, here, there = load_tokenizer(composed(*line)), [], []

    def reply(ids) -> str:
        return f"(Share Information) {sum(ids)}"

    def reply_ids(model, prompts, *_):
        here.extend(prompts)
        return [tokenizer(reply(ids), add_special_tokens=False)["input_ids"] for ids in prompts]

    def serve(body) -> Reply:
        ids = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True)["input_ids"]
        there.append(ids)
        return Reply(reply(ids))

    monkeypatch.setattr("cso_lab.generation.batched_decoding.reply_ids", reply_ids)
    monkeypatch.setattr(
        local, "load_model", lambda *_, **__: SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=1))
    )
    generate(composed(*line), dialogues, EXTES, None, tmp_path / "local")
    with FakeOpenAI(serve) as server:
        where = [f"generation.client.api_base={server.api_base}", "generation.client.model=openai/x"]
        generate(composed(*line, "generation.engine=server", *where), dialogues, EXTES, None, tmp_path / "served")
    assert sorted(here) == sorted(there) and len(here) == 20
    assert lines(tmp_path / "served" / "predictions.jsonl") == lines(tmp_path / "local" / "predictions.jsonl")
    roles = {body["messages"][0]["role"] for body in server.requests}
    assert roles == ({"user"} if backbone == "tiny_gemma" else {"system"})
    assert max(map(len, here)) <= 500 and max(len(body["messages"]) for body in server.requests) < 18


CHECKPOINT = ("backbone=tiny_llama", "generation.engine=server", "generation.client.model=openai/x", "generation.max_turns=2")


def stages_of(folder: Path, server: FakeOpenAI, shared: Path, *overrides) -> list[str]:
    """What a served checkpoint's cell predicts, by the run's own stage."""
    from cso_lab.pipeline.cell_context import CellContext
    from cso_lab.pipeline.generate import Generate

    folder.mkdir(parents=True, exist_ok=True)
    line = (f"generation.client.api_base={server.api_base}", f"shared_dir={shared}")
    Generate().run(CellContext(composed(*CHECKPOINT, *line, *overrides), folder, in_sweep=True))
    return [row["response"] for row in lines(folder / "predictions.jsonl")]


@pytest.mark.long
@pytest.mark.parametrize("one_folder", [False, True])
def test_checkpoints_of_different_trainings_at_one_address_share_nothing(one_folder, tmp_path):
    """The server is given another checkpoint between two cells, and nothing but the training on the command line tells."""
    holds = []
    with FakeOpenAI(lambda body: Reply(f"(Affirmation) {holds[-1]}")) as server:
        trainings = ("algo=sft", "algo=dpo", "algo=dpo mode=full", "algo=dpo seed=1", "algo=dpo training.learning_rate=1e-3")
        trainings += ("algo=dpo preferences=random", "algo=base")
        for number, line in enumerate(trainings):
            holds.append(line)
            folder = tmp_path / ("cell" if one_folder else str(number))
            assert stages_of(folder, server, tmp_path, *line.split()) == [line] * 2
        # Asked again for one of them, nobody is asked: its own answers are there. How often a training is saved makes no other checkpoint.
        holds.append("nobody")
        folder = tmp_path / ("cell" if one_folder else "again")
        assert stages_of(folder, server, tmp_path, *trainings[2].split(), "training.save_steps=7") == [trainings[2]] * 2
        assert len(server.requests) == 2 * len(trainings)


@pytest.mark.long
def test_the_command(tmp_path):
    """One cell with a budget, raised; the same predictions scored on another test set; no key anywhere; and no training."""
    env = {**os.environ, "OPENAI_API_KEY": SECRET}
    with FakeOpenAI(echo) as server:
        line = [
            *API,
            f"generation.client.api_base={server.api_base}",
            f"shared_dir={tmp_path}/shared",
            "generation.max_turns=14",
        ]
        line += ["generation.client.api_key_env=OPENAI_API_KEY"]
        first = [*line, f"hydra.run.dir={tmp_path}/runs/first", "evaluation.testset=strategy"]
        stopped = run_py(*first, "generation.client.budget.calls=4", env=env)
        assert stopped.returncode == 3, stopped.stderr
        assert "generation.client.budget.calls=4 is spent" in stopped.stderr.splitlines()[-1]
        assert len(server.requests) == 4
        done = run_py(*first, env=env)
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 14
        other = run_py(*line, f"hydra.run.dir={tmp_path}/runs/second", env=env)
        assert other.returncode == 0, other.stderr
        refused = run_py("-m", *API[:2], "algo=base,sft", f"hydra.sweep.dir={tmp_path}/sweep", env=env)
        assert len(server.requests) == 14
    on_contexts, on_turns = (
        json.loads((tmp_path / "runs" / name / "metrics.json").read_text()) for name in ("first", "second")
    )
    assert on_turns["n"] == 14 and on_contexts["turns"] == 14 and on_contexts["R-L"] == on_turns["R-L"]
    (contexts,) = (tmp_path / "shared" / "testset").glob("*/contexts.jsonl")
    named = {(row["dialogue"], row["turn"]) for row in lines(contexts)}
    predicted = {(row["dialogue"], row["turn"]) for row in lines(tmp_path / "runs" / "second" / "predictions.jsonl")}
    assert on_contexts["n"] == len(named & predicted) >= 4
    assert on_contexts["cell"]["label"] == "openai/tiny" and on_contexts["cell"]["family"] is None
    for metrics, testset in ((on_contexts, "strategy"), (on_turns, "turns")):
        context = metrics["context"]
        assert context["testset"] == testset and context["usage"] == {"calls": 14, "tokens": 140, "dollars": "unknown"}
        assert context["served_at"] == server.api_base.split("/")[2]
    assert refused.returncode == 2 and not (tmp_path / "sweep").exists()
    assert refused.stderr.splitlines()[-1].startswith("error: backbone=api is an API model and is never trained")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert SECRET not in "".join(run.stdout + run.stderr for run in (stopped, done, other, refused))


def test_a_prediction_of_a_reasoning_model_is_its_answer(tmp_path):
    """With a second round, in which the model is shown its first reply without the reasoning."""

    def thinks(body):
        return Reply(f"<think>{last(body)}</think>(Affirmation) {len(body['messages'])}")

    with FakeOpenAI(thinks) as server:
        found = served(tmp_path, server, "decoding=direct_refine", dialogues=[dialogue("a", 1)])
    assert server.requests[1]["messages"][2] == {"role": "assistant", "content": "(Affirmation) 2"}
    assert (found[0]["strategy"], found[0]["response"]) == ("Affirmation", "4")
    assert found[0]["raw"].startswith("<think>") and "cut" not in found[0]


def test_a_cut_prediction_is_recorded_and_not_asked_for_again(tmp_path):
    def mostly(body):
        return replace(echo(body), finish_reason="length" if last(body).startswith("b") else "stop")

    with FakeOpenAI(mostly) as server:
        found = served(tmp_path, server)
        assert len(server.requests) == 5
        (tmp_path / "predictions.jsonl").unlink()
        assert served(tmp_path, server) == found and len(server.requests) == 5  # the journal knows it too
    assert [row.get("cut") for row in found] == [None, None, None, True, True]
    assert usage(tmp_path)["usage"]["cut"] == {"supporter": 2}
    scores = evaluate_predictions(load_predictions(tmp_path / "predictions.jsonl", EXTES), EXTES)
    assert (scores["cut"], scores["n"], scores["unparsed"]) == (2, 5, 0)


def test_an_answer_that_reasoning_left_no_tokens_for_is_counted_with_the_key_to_raise(tmp_path):
    def mostly(body):
        return Reply("<think>Hm", finish_reason="length") if last(body).startswith("b") else echo(body)

    with FakeOpenAI(mostly) as server:
        found = served(tmp_path, server, "generation.client.max_attempts=1")
    assert [row["response"] for row in found[3:]] == ["", ""]
    ((reason, number),) = usage(tmp_path)["without_words"].items()
    assert number == 2 and "raise generation.max_new_tokens, or turn its reasoning off" in reason


def test_template_variables_go_into_the_request_of_an_api_model(tmp_path):
    with FakeOpenAI(echo) as server:
        served(tmp_path, server, "backbone.chat_template_kwargs={enable_thinking:false}", dialogues=[dialogue("a", 1)])
        served(tmp_path / "without", server, dialogues=[dialogue("a", 1)])
    assert [body.get("chat_template_kwargs") for body in server.requests] == [{"enable_thinking": False}, None]
