"""The journal: whatever ends the process, no answered question is asked again, and the trees are those of an uninterrupted run."""

import json
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
from fakes import FakeOpenAI, Reply
from hypothesis import given, settings
from hypothesis import strategies as st
from llm.test_client import client, question, within
from loopback import answering, journal, search, trees

from cso_lab.core.errors import UserError
from cso_lab.expansion import estimate, progress_display
from cso_lab.llm import client as llm_client
from cso_lab.llm.errors import ParseError
from cso_lab.llm.journal import Journal


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def line(key="k", **changes) -> dict:
    call = {"key": key, "dialogue": "d", "role": "judge", "model": "m", "seed": 1, "attempt": 1}
    return call | {"prompt_tokens": 7, "completion_tokens": 3, "cost": None, "reply": f"reply to {key} – ü\n"} | changes


def written(folder: Path, *lines: dict) -> Path:
    with Journal(folder, []) as opened:
        for call in lines:
            opened.write(call)
    return opened.path


# the file


def test_what_is_written_is_read_again(tmp_path):
    written(
        tmp_path,
        line("a"),
        line("b", fault="garbled", reply="?"),
        line("b", cost=0.25),
        line("c", dialogue="finished", role="seeker", estimated=True),
        {name: value for name, value in line("e", fault="500: no").items() if name not in ("reply", "prompt_tokens", "cost")},
    )
    with Journal(tmp_path, ["d"]) as opened:
        assert opened.answers == {"a": line("a")["reply"], "b": line("b")["reply"]}
        assert opened.parse_failures == {"b": 1} and opened.answered == {"d": 2}
        assert (
            opened.pop_cached("a") == line("a")["reply"] and opened.pop_cached("a") is None and opened.pop_cached("e") is None
        )
        usage = opened.usage
    assert (usage.calls, usage.failed_attempts) == ({"judge": 4, "seeker": 1}, 2)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cost) == (28, 12, 0.25)
    assert (usage.unpriced, usage.unmetered) == (3, 1)


WHOLE = "".join(json.dumps(line(key), ensure_ascii=False) + "\n" for key in "abc").encode()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(WHOLE)))
def test_wherever_the_file_was_torn_the_lines_before_are_whole_and_the_rest_is_cut_off(tmp_path_factory, length):
    folder = tmp_path_factory.mktemp("torn")
    (folder / "calls.jsonl").write_bytes(WHOLE[:length])
    whole = WHOLE[:length].count(b"\n")
    with Journal(folder, ["d"]) as opened:
        assert list(opened.answers) == list("abc")[:whole]
        opened.write(line("z"))
    assert [call["key"] for call in journal(folder)] == [*list("abc")[:whole], "z"]
    assert (folder / "calls.jsonl").read_bytes().count(b"\n") == whole + 1


@pytest.mark.parametrize("damage", [b"{oops}\n", b"\x00\x00\x00\n", b"[1]\n", b'{"key": 1}\n', b"\xff\xfe\n"])
def test_a_damaged_line_amid_whole_ones_is_named(damage, tmp_path):
    path = written(tmp_path, line("a"))
    path.write_bytes(path.read_bytes() + damage + WHOLE)
    with pytest.raises(UserError, match=r"calls\.jsonl:2 is damaged: delete the line"):
        Journal(tmp_path, []).__enter__()
    written_after = path.read_bytes()
    assert written_after.endswith(damage + WHOLE)  # nothing was cut off


def test_two_processes_do_not_share_a_journal(tmp_path):
    with Journal(tmp_path, []):
        with pytest.raises(UserError, match="another process is writing .*calls.jsonl"):
            Journal(tmp_path, []).__enter__()
    with Journal(tmp_path, []):
        pass


# asking with it


def ask(folder: Path, server, asked, dialogues=("d",)) -> object:
    with Journal(folder, dialogues) as opened:
        asking = client(server, journal=opened)
        import asyncio

        return asyncio.run(within(asking, asking.ask(asked))), asking.usage.to_json()


def test_an_answered_question_is_not_asked_again(tmp_path):
    with FakeOpenAI(Reply("first"), Reply("second")) as server:
        answers = [ask(tmp_path, server, question())[0] for _ in range(3)]
    assert answers == ["first"] * 3 and len(server.requests) == 1


def test_a_garbled_reply_is_counted_and_not_replayed_and_its_seed_not_used_again(tmp_path):
    def parse(reply: str) -> str:
        if reply == "?":
            raise ParseError("nonsense")
        return reply

    written(tmp_path, line("question 5", reply="?", fault="nonsense"))
    with FakeOpenAI(Reply("!")) as server:
        answer, usage = ask(tmp_path, server, question(5, parse))
    assert answer == "!" and [body["seed"] for body in server.requests] == [6]
    assert usage["calls"] == {"judge": 2} and usage["prompt_tokens"] == 14 and usage["failed_attempts"] == 1


def test_a_reply_that_no_longer_parses_is_asked_again(tmp_path):
    def parse(reply: str) -> str:
        if reply == "old":
            raise ParseError("the form has changed")
        return reply

    with FakeOpenAI(Reply("old"), Reply("new")) as server:
        assert [ask(tmp_path, server, question(parse=p))[0] for p in (str, parse)] == ["old", "new"]


# whole searches, ended in every way


SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["loopback", *(module.__name__ for module in (llm_client, estimate, progress_display))])
QUIET = ("roles.max_concurrency=8", "roles.timeout=20")


def searching(folder: Path, api_base: str, settings: tuple[str, ...] = (), largest_file: int | None = None) -> None:
    """Searches in a process of its own; the error that stops it is written to a file."""
    os.environ.pop("OPENAI_API_KEY", None)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    try:
        search(folder, api_base, *QUIET, *settings)
    except UserError as error:
        (folder / "stopped").write_text(str(error))


def kill_after(folder: Path, server: FakeOpenAI, settings: tuple[str, ...], requests: int, pause: float) -> None:
    """Starts the search and kills it after so many further requests and seconds, while it is still running."""
    process = SPAWN.Process(target=searching, args=(folder, server.api_base, settings))
    goal = len(server.requests) + requests
    process.start()
    while process.is_alive() and len(server.requests) < goal:
        time.sleep(0.001)
    time.sleep(pause)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def paid_for(folder: Path) -> set[tuple[str, int]]:
    """(model, seed) of every call whose reply is in the journal. A question's seed is its own."""
    return {(call["model"].removeprefix("openai/"), call["seed"]) for call in journal(folder) if "reply" in call}


@pytest.mark.long
@pytest.mark.parametrize("speculation", [0, 8])
@pytest.mark.parametrize("kills", [2, 20])
def test_killed_at_random_moments_of_a_run_with_faults(kills, speculation, tmp_path):
    settings = ("mcts=paper", "mcts.min_iterations=8", "mcts.max_iterations=8", f"mcts.speculation={speculation}")
    whole, killed = tmp_path / "undisturbed", tmp_path / "killed"
    with answering() as server:
        search(whole, server.api_base, *QUIET, *settings)
    # All kills together come some way before the end of the search, so each of them meets one that is under way.
    chance, most = random.Random(kills), len(journal(whole)) // kills
    faults = ("429", "500", "cut", "empty", "garbled", "refused", "no JSON")
    with answering(0.2, faults) as server:
        for _ in range(kills):
            before, made = paid_for(killed), len(server.requests)
            kill_after(killed, server, settings, chance.randint(1, most), chance.uniform(0, 0.01))
            assert not before & {(body["model"], body["seed"]) for body in server.requests[made:]}
        before, made = paid_for(killed), len(server.requests)
        summary = search(killed, server.api_base, *QUIET, *settings)
    assert len(before) >= kills, "every run was killed before it had kept anything"
    assert not before & {(body["model"], body["seed"]) for body in server.requests[made:]}
    assert summary["usage"]["failed_attempts"] > 0 and summary["set_aside"] == {}
    assert trees(whole) and trees(killed) == trees(whole)


def test_a_full_disk_is_reported_in_a_line_and_the_search_continues_when_there_is_space(tmp_path):
    with answering() as server:
        search(tmp_path / "undisturbed", server.api_base, *QUIET)
        undisturbed = len(server.requests)
        process = SPAWN.Process(target=searching, args=(tmp_path / "full", server.api_base, (), 9_000))
        process.start()
        process.join()
        message = (tmp_path / "full" / "stopped").read_text()
        assert process.exitcode == 0
        assert message.startswith("cannot write ") and "calls.jsonl: File too large; the same command goes on" in message
        path = tmp_path / "full" / "calls.jsonl"
        assert 8_000 < path.stat().st_size <= 9_000 and path.read_bytes().endswith(b"\n")
        before, made = paid_for(tmp_path / "full"), len(server.requests)
        search(tmp_path / "full", server.api_base, *QUIET)
    again = {(body["model"], body["seed"]) for body in server.requests[made:]}
    assert len(before) > 10 and not again & before
    assert len(again) == undisturbed - len(before)
    assert trees(tmp_path / "full") == trees(tmp_path / "undisturbed")


@pytest.mark.parametrize("concurrency", [1, 64])
def test_the_trees_do_not_depend_on_concurrency_nor_does_the_number_of_calls(concurrency, tmp_path):
    with answering() as server:
        search(tmp_path / "8", server.api_base, "roles.max_concurrency=8")
        calls = len(server.requests)
        search(tmp_path / "other", server.api_base, f"roles.max_concurrency={concurrency}")
    assert trees(tmp_path / "other") == trees(tmp_path / "8") and len(server.requests) == 2 * calls
