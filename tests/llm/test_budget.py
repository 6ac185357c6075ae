"""A budget stops a search at the call after the cap, and the search continues when it is raised; estimates come close."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import forking
import pytest
from fakes import FakeOpenAI, Reply
from llm.test_client import ask, client
from loopback import UNSTRUCTURED, answering, config, journal, search, trees

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json
from cso_lab.core.strategies import strategy_set
from cso_lab.corpora import load
from cso_lab.expansion.configured_search import ConfiguredSearch
from cso_lab.expansion.estimate import estimate
from cso_lab.expansion.expand import estimate_rest
from cso_lab.llm.budget import Budget, BudgetSpent

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_calls_stop_at_the_cap_and_go_on_when_it_is_raised(tmp_path):
    with answering() as server:
        search(tmp_path / "whole", server.api_base)
        whole = len(server.requests)
        for cap in (25, 45):  # the second includes what the first has paid for
            with pytest.raises(BudgetSpent) as stopped:
                search(tmp_path / "capped", server.api_base, f"roles.budget.calls={cap}")
            assert len(server.requests) - whole == cap == len(journal(tmp_path / "capped"))
        match = re.fullmatch(
            r"roles\.budget\.calls=45 is spent: (\d) of 2 dialogues are finished, and the rest would take about (\d+) calls \(.*\), "
            r".* tokens, cost unknown \(.*\); raise the cap, and the same command goes on",
            str(stopped.value),
        )
        assert match and stopped.value.exit_code == 3
        assert 0.5 * (whole - 45) < int(match[2]) < 2 * (whole - 45)
        summary = read_json(tmp_path / "capped" / "search.json")
        assert summary["stopped"] == "roles.budget.calls=45 is spent" and sum(summary["usage"]["calls"].values()) == 45
        search(tmp_path / "capped", server.api_base, f"roles.budget.calls={whole}")
        assert len(server.requests) == 2 * whole
    assert trees(tmp_path / "capped") == trees(tmp_path / "whole")


def test_failed_calls_count(tmp_path):
    with answering(0.5, ("500",)) as server:
        with pytest.raises(BudgetSpent):
            search(tmp_path, server.api_base, "roles.budget.calls=40")
    assert len(server.requests) == 40
    assert 5 < read_json(tmp_path / "search.json")["usage"]["failed_attempts"] < 35


PLAYED_BY = {"play a person": "seeker", "emotional supporter who": "supporter", "long experience": "strategist"}


def test_tokens_stop_at_the_call_after_the_cap(tmp_path):
    # the server counts 7 + 3 tokens a reply
    with answering() as server:
        with pytest.raises(BudgetSpent, match=r"roles\.budget\.tokens=300 is spent"):
            search(tmp_path, server.api_base, "roles.budget.tokens=300", "roles.max_concurrency=1")
    assert len(server.requests) == 30 == read_json(tmp_path / "search.json")["usage"]["unpriced"]


def test_dollars_stop_at_the_call_after_the_cap(tmp_path):
    # 7 tokens at $0.15 and 3 at $0.60 a million: 2.85 millionths of a dollar a reply, and 37 replies are the first to make 105
    with answering() as server:
        answer = server.replies[0]

        def by_role(body):
            system = body["messages"][0]["content"]
            return answer(body | {"model": next((role for words, role in PLAYED_BY.items() if words in system), "judge")})

        server.replies = [by_role]
        models = [f"roles.{role}.model=openai/gpt-4o-mini" for role in ("seeker", "supporter", "strategist", "judge")]
        with pytest.raises(BudgetSpent, match=r"roles\.budget\.dollars=0\.000105 is spent"):
            search(tmp_path, server.api_base, *models, "roles.budget.dollars=0.000105", "roles.max_concurrency=1")
    assert len(server.requests) == 37
    assert read_json(tmp_path / "search.json")["usage"]["cost"] == pytest.approx(37 * 2.85e-6)


def test_dollars_cannot_be_capped_where_no_price_is_known(tmp_path):
    with answering() as server:
        with pytest.raises(
            UserError, match=r"nobody knows that of openai/seeker .*: cap roles.budget.calls or roles.budget.tokens"
        ):
            search(tmp_path, server.api_base, "roles.budget.dollars=1")
    assert server.requests == []


@pytest.mark.parametrize("model", ["openrouter/anthropic/claude-sonnet-4.5", "openrouter/someone/not-there-yet"])
def test_a_model_without_a_price_in_the_tables_is_not_taken_for_free(model):
    """Of a model that it knows by its capabilities alone litellm says that it costs nothing."""
    with pytest.raises(UserError, match="nobody knows that of openrouter/"):
        Budget({"dollars": 1}).check_models({"judge": model})
    with FakeOpenAI(Reply("a")) as server:
        asking = client(server)
        ask(asking, str, {"model": model, "temperature": None, "max_tokens": 9})
    assert (asking.usage.unpriced, asking.usage.cost) == (1, 0)


# the estimate


def configured_search(*overrides: str) -> ConfiguredSearch:
    from omegaconf import OmegaConf

    roles = [f"roles.{role}.model=openai/{role}" for role in ("seeker", "supporter", "strategist", "judge")]
    cfg = config(("roles.api_base=http://127.0.0.1:9/v1", *roles, *overrides))
    return ConfiguredSearch(
        mcts=OmegaConf.to_container(cfg.mcts, resolve=True),
        roles=OmegaConf.to_container(cfg.roles, resolve=True),
        strategies=strategy_set(cfg.data.strategies),
        theta=cfg.preferences.theta,
        min_end_visits=cfg.preferences.min_end_visits,
    )


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("mcts.cache_replies=false",),
        ("mcts.rollout_rounds=1", "mcts.min_iterations=8", "mcts.max_iterations=8"),
        pytest.param(("mcts.extend_negatives=true",), marks=pytest.mark.long),
    ],
)
def test_the_estimate_is_within_30_percent_of_a_simulated_search(overrides, tmp_path):
    simulated = [f"roles.{role}.model=simulated/{role}" for role in ("seeker", "supporter", "strategist", "judge")]
    summary = search(tmp_path, "null", *simulated, *overrides, dialogues=10)
    calls = summary["usage"]["calls"]
    assert summary["estimate"]["calls"].keys() == calls.keys()
    assert sum(summary["estimate"]["calls"].values()) == pytest.approx(sum(calls.values()), rel=0.3)


def test_an_estimate_grows_with_the_dialogues_and_knows_prices():
    dialogues = load(config(("roles.api_base=x",)).data).dialogues
    two, ten = (estimate(configured_search(), dialogues[:number]) for number in (2, 10))
    assert ten.calls.total() > 3 * two.calls.total() > 0
    assert two.calls_if_nobody_leaves >= two.calls.total()
    assert two.iterations == 6
    assert two.cost(configured_search().roles) is None
    priced = configured_search(
        *(f"roles.{role}.model=openai/gpt-4o-mini" for role in ("seeker", "supporter", "strategist", "judge"))
    )
    assert two.cost(priced.roles) == pytest.approx(
        (two.prompt_tokens.total() * 0.15 + two.completion_tokens.total() * 0.6) / 1e6, rel=0.01
    )
    assert estimate(configured_search(), []).calls.total() == 0


def test_prompts_that_the_simulated_players_cannot_read_are_counted_as_well():
    strange = configured_search("roles.supporter.query='{dialogue}'", "roles.strategist.system=Score.")
    assert estimate(strange, load(config(("roles.api_base=x",)).data).dialogues[:1]).calls["supporter"] > 3


def test_the_rest_is_less_once_a_part_is_in_the_journal(tmp_path):
    settings = vars(configured_search()) | {"folder": tmp_path}
    dialogues = load(config(("roles.api_base=x",)).data).dialogues[:2]

    def calls() -> int:
        line = estimate_rest(dialogues, **settings)
        return int(re.match(r"search of (?:\d) of 2 dialogues: about ([\d,]+) calls", line)[1].replace(",", ""))

    before = calls()
    assert not (tmp_path / "calls.jsonl").exists()  # an estimate writes nothing
    with answering() as server:
        with pytest.raises(BudgetSpent):
            search(tmp_path, server.api_base, "roles.budget.calls=20")
    assert calls() == pytest.approx(before - 20, abs=3)


# the command


def command(folder: Path, api_base: str, *arguments: str) -> list[str]:
    line = [sys.executable, "run.py", "stages=[search]", "roles=server", f"roles.api_base={api_base}", "data.seed_dialogues=2"]
    line += [f"roles.{role}.model=openai/{role}" for role in ("seeker", "supporter", "strategist", "judge")]
    line += ["mcts.min_iterations=3", "mcts.max_iterations=3", "mcts.extend_negatives=false", *UNSTRUCTURED]
    return [*line, f"hydra.run.dir={folder}", f"shared_dir={folder}/shared", *arguments]


def run(*line: str) -> subprocess.CompletedProcess:
    return forking.run(list(line), 120, cwd=ROOT)


@pytest.mark.long
def test_the_command_estimates_stops_with_code_3_and_goes_on_in_the_same_folder(tmp_path):
    with answering() as server:
        shown = run(*command(tmp_path, server.api_base, "estimate=true"))
        assert shown.returncode == 0 and server.requests == []
        assert re.match(r"search of 2 of 2 dialogues: about \d+ calls \(judge", shown.stdout), shown.stdout + shown.stderr
        stopped = run(*command(tmp_path, server.api_base, "roles.budget.calls=20"))
        assert stopped.returncode == 3 and len(server.requests) == 20
        last_line = stopped.stderr.splitlines()[-1]
        assert last_line.startswith("error: roles.budget.calls=20 is spent: 0 of 2 dialogues are finished"), stopped.stderr
        done = run(*command(tmp_path, server.api_base, "roles.max_concurrency=4", "roles.requests_per_minute=100000"))
        assert done.returncode == 0, done.stderr
        assert len({(body["model"], body["seed"]) for body in server.requests}) == len(server.requests)
    (folder,) = (tmp_path / "shared" / "search").iterdir()
    assert len(trees(folder)) == 2 and (folder / "done.json").exists()


@pytest.mark.long
def test_an_interrupted_command_says_so_in_a_line_and_goes_on(tmp_path):
    with answering() as server:
        answer = server.replies[0]
        server.replies = [lambda body: (time.sleep(0.05), answer(body))[1]]
        process = forking.Popen(
            command(tmp_path, server.api_base), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while len(server.requests) < 15:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130 and stderr == "interrupted; the same command goes on from here\n"
        (folder,) = (tmp_path / "shared" / "search").iterdir()
        assert read_json(folder / "search.json")["stopped"] == "interrupted"
        assert len(journal(folder)) == len(server.requests)  # calls in flight have been journaled
        assert run(*command(tmp_path, server.api_base)).returncode == 0
    assert len({(body["model"], body["seed"]) for body in server.requests}) == len(server.requests)
