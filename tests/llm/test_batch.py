"""Questions through the batch interface of a server on loopback: what is submitted, picked up, paid for and asked again."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_batches import FakeBatches
from fakes import FakeOpenAI, Reply, failure

from cso_lab.core.errors import UserError
from cso_lab.llm import batch
from cso_lab.llm.ask_all import ask_all
from cso_lab.llm.budget import BudgetSpent
from cso_lab.llm.client import Client, Question
from cso_lab.llm.config_location import ConfigLocation
from cso_lab.llm.errors import ParseError, ServiceError
from cso_lab.llm.journal import Journal
from cso_lab.roles.parsing import trim_utterance

PLACE = ConfigLocation("client", "judges", "max_tokens", "temperature")
MODEL = {"model": "openai/gpt-4o-mini", "temperature": 0.0, "max_tokens": 20}
SECRET = "sk-do-not-print-me-0123456789"
OTHER = "sk-nor-me-either-0123456789"
LIVE = Reply("asked singly")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def said(body: dict) -> str:
    return body["messages"][-1]["content"]


def echo(body: dict) -> Reply:
    return Reply(f"you said {said(body)}")


def parse(reply: str) -> str:
    if reply == "nonsense":
        raise ParseError("nonsense")
    return reply


def question(name: str, model: str = MODEL["model"]) -> Question:
    messages = [{"role": "user", "content": name}]
    return Question(f"key-{name}-{model[-4:]}", "d", "judge", MODEL | {"model": model}, messages, 7, parse)


def names(count: int) -> list[str]:
    return [f"n{i}" for i in range(count)]


def asked(folder: Path, api_base: str, questions, **changes) -> tuple[list, dict, Journal]:
    """(answers, refused, journal) of the questions, in batches."""
    limits = dict(max_concurrency=4, timeout=5, max_attempts=3, max_backoff=0, batch=True, batch_poll=0.02)
    with Journal(folder, ["d"]) as journal:
        client = Client(**limits | changes, api_base=api_base, journal=journal, place=PLACE)
        return *ask_all(
            client, journal, [question(one) if isinstance(one, str) else one for one in questions], "judge", "answer"
        ), journal


def journal_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text(encoding="utf-8").splitlines()]


def test_replies_come_from_one_batch_in_the_order_of_the_questions_at_half_price(tmp_path):
    with FakeOpenAI(LIVE, batches=FakeBatches(echo)) as server:
        answers, refused, journal = asked(tmp_path, server.api_base, names(5))
        assert answers == [f"you said n{i}" for i in range(5)] and not refused
        assert asked(tmp_path, server.api_base, names(5))[0] == answers
        assert len(server.batches.names) == 1 and server.batches.looks == 3
    assert not server.requests
    # 7 tokens at $0.075 and 3 at $0.30 a million
    assert journal.usage.cost == pytest.approx(5 * (7 * 0.075 + 3 * 0.30) / 1e6)
    assert journal.usage.calls == {"judge": 5} and journal.usage.tokens == 50
    body = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "n0"}],
        "temperature": 0.0,
        "max_tokens": 20,
        "seed": 7,
    }
    assert server.batches.lines[0][0] == {
        "custom_id": "key-n0-mini",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }


def test_a_model_without_batch_prices_costs_half():
    from cso_lab.llm import prices

    known = prices.load_litellm().model_cost
    model = next(f"openai/{name}" for name in ("gpt-4", "gpt-3.5-turbo") if "input_cost_per_token_batches" not in known[name])
    assert prices.batch_cost(model, 1000, 10) == pytest.approx(prices.cost(model, 1000, 10) / 2)
    assert prices.batch_cost("openai/nobody-knows", 1000, 10) is None


def test_what_fails_within_a_batch_is_asked_singly(tmp_path):
    replies = {
        "n0": failure(500, "overloaded"),
        "n1": Reply("nonsense"),
        "n2": Reply(""),
        "n3": Reply(body={"choices": []}),
        "n4": Reply(body={"error": {"code": 402, "message": "Insufficient credits"}}),
        "n5": failure(404, "The model does not exist"),
        "n6": failure(400, "The response was filtered by the content management policy"),
    }

    def live(body: dict) -> Reply:
        return replies["n6"] if said(body) == "n6" else LIVE

    with FakeOpenAI(live, batches=FakeBatches(lambda body: replies.get(said(body)) or echo(body))) as server:
        answers, refused, journal = asked(tmp_path, server.api_base, names(9))
    assert answers == [LIVE.text] * 6 + [None, "you said n7", "you said n8"] and refused.keys() == {6}
    assert sorted(said(body) for body in server.requests) == [f"n{i}" for i in range(7)]
    assert {said(body): body["seed"] for body in server.requests}["n1"] == 8, "another seed after a reply that did not parse"
    assert len(server.batches.names) == 1
    assert journal.usage.failed_attempts == 8  # seven in the batch, and n6 again
    price, half = (7 * 0.15 + 3 * 0.60) / 1e6, (7 * 0.075 + 3 * 0.30) / 1e6
    assert journal.usage.cost == pytest.approx(6 * price + 4 * half), "n1 and n2 are paid for as well"


def test_what_is_cut_in_a_batch_is_asked_singly_with_more_room_and_counted_once(tmp_path):
    half = Reply("It is hard. I kn", finish_reason="length")
    questions = [replace(question(name), more_room=True, trim=trim_utterance) for name in names(2)]
    with FakeOpenAI(Reply("It is hard. I know."), batches=FakeBatches(lambda body: half)) as server:
        answers, _, journal = asked(tmp_path, server.api_base, questions)
    assert answers == ["It is hard. I know."] * 2
    assert [body["max_tokens"] for body in server.requests] == [40, 40] and len(server.batches.names) == 1
    assert journal.usage.calls == {"judge": 4} and journal.usage.cut == {"judge": 2}


def test_what_expires_is_asked_singly_also_by_the_next_run(tmp_path):
    fake = FakeBatches(lambda body: echo(body) if said(body) in ("n0", "n2") else None, ends=["expired"])
    with FakeOpenAI(failure(402, "no credit"), batches=fake) as server:
        with pytest.raises(ServiceError, match="no credit.*2 of 4 questions are answered"):
            asked(tmp_path, server.api_base, names(4), max_concurrency=1)
    with FakeOpenAI(LIVE, batches=FakeBatches(echo)) as server:
        assert asked(tmp_path, server.api_base, names(4))[0] == ["you said n0", LIVE.text, "you said n2", LIVE.text]
        assert len(server.requests) == 2 and not server.batches.names


def test_a_batch_that_fails_validation_says_why_and_is_submitted_again_by_the_same_command(tmp_path):
    with FakeOpenAI(LIVE, batches=FakeBatches(echo, ends=["failed", "completed"])) as server:
        with pytest.raises(
            UserError, match=r"refused batch batch_0: The file holds two models \(invalid\) \(line 2\): .*client\.batch=false"
        ):
            asked(tmp_path, server.api_base, names(3))
        assert asked(tmp_path, server.api_base, names(3))[0] == [f"you said n{i}" for i in range(3)]
        assert len(server.batches.names) == 2 and not server.requests


def test_an_account_that_allows_fewer_tokens_under_way_is_told_which_key_helps(tmp_path):
    fake = FakeBatches(echo, ends=["failed"])
    fake.error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached. Limit: 9 enqueued tokens."}
    with FakeOpenAI(LIVE, batches=fake) as server:
        with pytest.raises(UserError, match=r"limit reached.*: give client\.batch_tokens=N .*; the same command goes on"):
            asked(tmp_path, server.api_base, names(3))


def test_of_a_cancelled_batch_what_is_there_is_kept_and_nothing_is_asked_singly(tmp_path):
    fake = FakeBatches(
        lambda body: echo(body) if said(body) == "n1" or fake.ends == ["completed"] else None, ends=["cancelled"]
    )
    with FakeOpenAI(LIVE, batches=fake) as server:
        with pytest.raises(UserError, match="batch batch_0 was cancelled: 1 of 3 replies are kept; the same command submits"):
            asked(tmp_path, server.api_base, names(3))
        fake.ends = ["completed"]
        assert asked(tmp_path, server.api_base, names(3))[0] == [f"you said n{i}" for i in range(3)]
        assert [len(lines) for lines in fake.lines] == [3, 2] and not server.requests


def test_more_questions_than_a_batch_holds_and_several_models_make_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "MAX_REQUESTS", 3)
    questions = [question(name, model) for name in names(4) for model in ("openai/gpt-4o-mini", "openai/gpt-4o")]
    with FakeOpenAI(LIVE, batches=FakeBatches(echo)) as server:
        answers, _, _ = asked(tmp_path, server.api_base, questions)
        assert answers == [f"you said n{i // 2}" for i in range(8)]
        assert [len(lines) for lines in server.batches.lines] == [3, 1, 3, 1]
        assert all(len({line["body"]["model"] for line in lines}) == 1 for lines in server.batches.lines)


def test_no_more_tokens_are_under_way_than_the_account_allows(tmp_path):
    long = [f"{name} {'x' * 400}" for name in names(6)]  # 100 tokens each
    fake = FakeBatches(echo)
    with FakeOpenAI(LIVE, batches=fake) as server:
        assert asked(tmp_path, server.api_base, long, batch_tokens=250)[0] == [f"you said {name}" for name in long]
    assert [len(lines) for lines in fake.lines] == [2, 2, 2]
    assert fake.looks == 3 * fake.polls, "one after another"


def test_more_questions_join_a_batch_that_is_under_way(tmp_path):
    fake = FakeBatches(echo, polls=10**6)
    with FakeOpenAI(LIVE, batches=fake) as server:
        interrupt(lambda: asked(tmp_path, server.api_base, names(2)), after=lambda: fake.looks > 1)
        with pytest.raises(
            BudgetSpent, match=r"client.budget.calls=3: 0 are used, and 4 questions in batches may take up to 4 more"
        ):
            asked(tmp_path, server.api_base, names(4), budget={"calls": 3})
        fake.polls = 1
        fake._left["batch_0"] = 1
        assert asked(tmp_path, server.api_base, names(4))[0] == [f"you said n{i}" for i in range(4)]
        assert [[said(line["body"]) for line in lines] for lines in fake.lines] == [["n0", "n1"], ["n2", "n3"]]


def test_a_run_reads_of_a_batch_what_it_asked_for_and_leaves_the_rest_to_whom_it_belongs(tmp_path):
    fake = FakeBatches(echo, polls=10**6)
    with FakeOpenAI(LIVE, batches=fake) as server:
        interrupt(lambda: asked(tmp_path, server.api_base, names(3)), after=lambda: fake.looks > 1)
        fake._left["batch_0"] = 1
        assert asked(tmp_path, server.api_base, ["n1"])[0] == ["you said n1"]
        assert asked(tmp_path, server.api_base, names(3))[0] == [f"you said n{i}" for i in range(3)]
        assert len(fake.names) == 1 and not server.requests
    assert len([line for line in journal_lines(tmp_path) if "reply" in line]) == 3


def interrupt(work, after) -> None:
    """Runs `work`, and interrupts it as Ctrl-C does once `after` is true."""
    import threading

    def press() -> None:
        while not after():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        work()


def test_ctrl_c_leaves_the_batch_under_way_and_says_so(tmp_path, capsys):
    fake = FakeBatches(echo, polls=10**6)
    with FakeOpenAI(LIVE, batches=fake) as server:
        interrupt(lambda: asked(tmp_path, server.api_base, names(2)), after=lambda: fake.looks > 2)
    assert "batch_0: under way at the provider; the same command picks it up" in capsys.readouterr().err


def test_what_is_in_a_batch_under_way_is_not_asked_singly(tmp_path):
    fake = FakeBatches(echo, polls=10**6)
    with FakeOpenAI(LIVE, batches=fake) as server:
        interrupt(lambda: asked(tmp_path, server.api_base, names(2)), after=lambda: fake.looks > 1)
        with pytest.raises(UserError, match=r"batch batch_0 is under way with 2 of these questions: give client\.batch=true"):
            asked(tmp_path, server.api_base, names(3), batch=False)
        assert not server.requests
        assert asked(tmp_path, server.api_base, ["other"], batch=False)[0] == [LIVE.text]


def test_a_submission_without_an_answer_is_looked_up_and_not_made_twice(tmp_path):
    with FakeOpenAI(LIVE, batches=FakeBatches(echo, lost=1)) as server:
        assert asked(tmp_path, server.api_base, names(2))[0] == ["you said n0", "you said n1"]
        assert len(server.batches.names) == 1 and not server.requests


def test_looks_that_fail_are_taken_again_and_a_server_that_is_gone_stops(tmp_path):
    fake = FakeBatches(echo, polls=10**6)
    with FakeOpenAI(LIVE, batches=fake) as server:

        def go():
            fake.refuses = failure(503, "busy")

        import threading

        threading.Timer(0.4, go).start()
        with pytest.raises(ServiceError, match="503: busy; the batch is under way, and the same command picks it up"):
            asked(tmp_path, server.api_base, names(2))
        fake.refuses, fake._left["batch_0"] = None, 1
        assert asked(tmp_path, server.api_base, names(2))[0] == ["you said n0", "you said n1"]
        assert len(fake.names) == 1


def test_a_run_that_ended_while_it_read_a_batch_reads_the_rest_and_counts_nothing_twice(tmp_path):
    replies = {"n0": Reply("nonsense"), "n1": failure(500)}
    with FakeOpenAI(LIVE, batches=FakeBatches(lambda body: replies.get(said(body)) or echo(body))) as server:
        usage = asked(tmp_path, server.api_base, names(5))[2].usage.to_json()
        submitted = [line for line in journal_lines(tmp_path) if "batch" in line][:2]
        read = [line for line in journal_lines(tmp_path) if line.get("reply") in ("nonsense", "you said n2")]
        kept = submitted + read
        (tmp_path / "calls.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        answers, _, journal = asked(tmp_path, server.api_base, names(5))
        assert answers == [LIVE.text] * 2 + ["you said n2", "you said n3", "you said n4"]
        again = journal.usage.to_json()
        assert again.pop("cost") == pytest.approx(usage.pop("cost")) and again == usage
        assert len(server.batches.names) == 1


@pytest.mark.parametrize(
    ("refuses", "said"),
    [
        (failure(404, "Not Found"), r"has no batch interface \(POST /files: 404: Not Found.*\): give client\.batch=false"),
        (failure(401, "bad key"), "server of batches: 401: bad key"),
        (failure(400, "purpose"), "server of batches: request refused: 400: purpose"),
        (Reply(body="<html>hello</html>"), "/files: not an answer of a batch interface: <html>hello</html>"),
    ],
)
def test_a_server_that_takes_no_batches_is_named_in_one_line(refuses, said, tmp_path):
    with FakeOpenAI(LIVE, batches=FakeBatches(echo, refuses=refuses)) as server:
        with pytest.raises(UserError, match=said) as error:
            asked(tmp_path, server.api_base, names(2))
        assert "\n" not in str(error.value) and not server.requests


def test_a_batch_that_another_account_submitted_is_not_submitted_again(tmp_path):
    fake = FakeBatches(echo, polls=10**6)
    with FakeOpenAI(LIVE, batches=fake) as server:
        interrupt(lambda: asked(tmp_path, server.api_base, names(2)), after=lambda: fake.looks > 1)
    with FakeOpenAI(LIVE, batches=FakeBatches(echo)) as other:
        with pytest.raises(UserError, match="no such batch.*another key or address"):
            asked(tmp_path, other.api_base, names(2))
        assert not other.batches.names


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"calls": 4}, r"budget\.calls=4: 0 are used, and 5 questions in batches may take up to 5 more"),
        ({"tokens": 100}, r"budget\.tokens=100: 0 are used, and 5 questions in batches may take up to 100000|5 questions"),
        ({"dollars": 1e-5}, r"budget\.dollars=1e-05: 0 are used, and 5 questions in batches may take up to"),
    ],
)
def test_caps_are_looked_at_before_anything_is_submitted(budget, said, tmp_path):
    with FakeOpenAI(LIVE, batches=FakeBatches(echo)) as server:
        long = [f"{name} {'x' * 40}" for name in names(5)]
        with pytest.raises(BudgetSpent, match=said):
            asked(tmp_path, server.api_base, long, budget=budget)
        assert not server.batches.names and not server.batches._files
        assert asked(tmp_path, server.api_base, long, budget={"calls": 5, "tokens": 200, "dollars": 1e-4})[0]


def test_without_a_limit_of_the_reply_a_cap_cannot_be_held(tmp_path):
    with FakeOpenAI(LIVE, batches=FakeBatches(echo)) as server:
        boundless = Question("k", "d", "judge", MODEL | {"max_tokens": None}, [{"role": "user", "content": "n"}], 1, parse)
        with pytest.raises(UserError, match=r"client\.batch=true: .*max_tokens.*or cap client\.budget\.calls alone"):
            asked(tmp_path, server.api_base, [boundless], budget={"tokens": 10**9})
        assert asked(tmp_path, server.api_base, [boundless], budget={"calls": 1})[0] == ["you said n"]


def test_only_the_named_key_is_sent_and_it_reaches_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Mine: {SECRET}")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("SERVER_KEY", OTHER)
    fake = FakeBatches(lambda body: Reply(f"my key is {OTHER}"))
    with FakeOpenAI(LIVE, batches=fake) as server:
        assert asked(tmp_path, server.api_base, names(2), api_key_env="SERVER_KEY")[0] == ["my key is $SERVER_KEY"] * 2
    assert {given["authorization"] for given in fake.headers} == {f"Bearer {OTHER}"}
    assert not any(SECRET in value for given in fake.headers for value in given.values())
    texts = [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()]
    assert not any(SECRET in text or OTHER in text for text in texts)


def waiting(folder: str, api_base: str) -> None:
    """Asks in a process of its own."""
    os.environ.pop("OPENAI_API_KEY", None)
    asked(Path(folder), api_base, names(4), batch_poll=0.05)


def killed(folder: Path, api_base: str, when) -> None:
    """Runs `waiting` and kills it with SIGKILL once `when` is true."""
    process = SPAWN.Process(target=waiting, args=(str(folder), api_base))
    process.start()
    deadline = time.monotonic() + 60
    while process.is_alive() and not when() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.long
def test_killed_while_it_waits_the_next_run_picks_the_batch_up(tmp_path):
    fake = FakeBatches(echo, polls=10**6)
    with FakeOpenAI(LIVE, batches=fake) as server:
        for _ in range(2):
            looks = fake.looks
            killed(tmp_path, server.api_base, lambda looks=looks: fake.looks > looks + 2)
        assert journal_lines(tmp_path)[-1]["id"] == "batch_0"
        fake._left["batch_0"] = 2
        answers, _, journal = asked(tmp_path, server.api_base, names(4))
    assert answers == [f"you said n{i}" for i in range(4)]
    assert len(fake.names) == 1 and not server.requests and journal.usage.calls == {"judge": 4}


@pytest.mark.long
def test_killed_between_the_submission_and_its_line_the_next_run_finds_the_batch(tmp_path):
    fake = FakeBatches(echo)
    fake.hold = 30
    with FakeOpenAI(LIVE, batches=fake) as server:
        killed(tmp_path, server.api_base, lambda: fake.names)
        assert all("id" not in line for line in journal_lines(tmp_path))
        fake.hold = 0
        # A batch of somebody else is newer, and the provider lists one a page.
        fake._batches["batch_9"] = {"id": "batch_9", "status": "in_progress", "metadata": None}
        assert asked(tmp_path, server.api_base, names(4))[0] == [f"you said n{i}" for i in range(4)]
        assert len(fake.names) == 1 and not server.requests


@pytest.mark.long
def test_killed_before_the_submission_the_next_run_submits(tmp_path):
    fake = FakeBatches(echo)
    fake.hold_upload = 30
    with FakeOpenAI(LIVE, batches=fake) as server:
        killed(tmp_path, server.api_base, lambda: fake._files)
        assert len(journal_lines(tmp_path)) == 1
        fake.hold_upload = 0
        assert asked(tmp_path, server.api_base, names(4))[0] == [f"you said n{i}" for i in range(4)]
        assert len(fake.names) == 1 and not server.requests
