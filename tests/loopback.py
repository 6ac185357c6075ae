"""Whole searches with a loopback server whose models answer as the simulated players do."""

import json
import random
from collections import Counter
from pathlib import Path

from fakes import FakeOpenAI, Reply, failure
from omegaconf import OmegaConf
from project import composed

from cso_lab.core.strategies import strategy_set
from cso_lab.corpora import load
from cso_lab.expansion.expand import expand
from cso_lab.roles.simulated.provider import simulated_reply

# JSON is left to the prompt here, so that every call is one of the search; test_structured.py asks for it.
UNSTRUCTURED = ("roles.strategist.structured=none", "roles.judge.structured=none")
SMALL = (
    "mcts.min_iterations=3",
    "mcts.max_iterations=3",
    "mcts.extend_negatives=false",
    "roles.max_backoff=0.02",
    *UNSTRUCTURED,
)
FAULTS = {
    "429": failure(429, Retry_After="0"),
    "500": failure(500),
    "hanging": Reply("late", delay=0.6),
    "cut": Reply("half of it", cut=True),
    "empty": Reply(""),
    "garbled": Reply(body={"choices": [{"message": {"content": None}}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
    "refused": Reply(body={"choices": [{"message": {"content": None, "refusal": "I cannot help with that."}}]}),
    "no JSON": Reply(body="<html>busy, come back later</html>"),
    "no choice": Reply(body={"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 0}}),
    "error under 200": Reply(body={"error": {"message": "upstream busy, come back later"}}),
    "error as a string": Reply(body={"error": "busy, come back later"}),
    "error in a list": Reply(body=[{"error": {"code": 503, "message": "busy, come back later"}}]),
    "error in a choice": Reply(
        body={
            "choices": [
                {"error": {"code": 502, "message": "come back later"}, "finish_reason": "error", "message": {"content": ""}}
            ]
        }
    ),
}
REPLIES = ("empty", "garbled", "refused")
"""The FAULTS that are replies of the model, but without usable text."""
# Errors that the account causes, whatever the question.
OF_ACCOUNT = {
    "401": failure(401, "come back with a key"),
    "402": failure(402, "out of money, come back with some"),
    "403": failure(403, "this country may come back later"),
    "404": failure(404, "no such path, come back with another"),
    "credit, as 400": failure(400, "Your credit balance is too low, come back with some"),
    "credit, as 429": Reply(status=429, body={"error": {"message": "come back with some", "code": "insufficient_quota"}}),
    "credit, under 200": Reply(body={"error": {"code": 402, "message": "Insufficient credits, come back with some"}}),
    "key, as 400": failure(400, "API key not valid, come back with another"),
    "model, as 400": failure(400, "The model `tiny` does not exist, come back with another"),
    "a day's pause": failure(429, "come back tomorrow", Retry_After="86400"),
}
# Responses by which the model or its filter refuses one question.
REFUSALS = {
    "400": failure(400, "The response was filtered by the content management policy"),
    "400, by its code": Reply(status=400, body={"error": {"message": "no", "code": "content_filter"}}),
    "403": failure(403, "Your chosen model requires moderation and your input was flagged for harm"),
    "error under 200": Reply(body={"error": {"message": "no", "code": "content_policy_violation"}}),
    "filtered": Reply(body={"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}], "usage": {}}),
    "refused": FAULTS["refused"],
}


def answering(share: float = 0.0, faults=tuple(FAULTS), seeded: bool = False, **forms) -> FakeOpenAI:
    """Returns a server whose model NAME answers as simulated/NAME, except that a `share` of its requests gets one of `faults`.

    Answers depend on the messages and, if `seeded`, on the request's seed. Faults depend on the messages and on how often they were
    sent, so that they are the same in every run, whatever the order of requests; after four attempts there is always an answer.
    `forms`: the forms of replies that the server takes, see FakeOpenAI.
    """
    attempts = Counter()

    def reply(body: dict) -> Reply:
        question = json.dumps([body["model"], body["messages"]])
        attempts[question] += 1
        rng = random.Random(f"{question}/{attempts[question]}")
        if attempts[question] <= 4 and rng.random() < share:
            return FAULTS[rng.choice(faults)]
        return Reply(simulated_reply(body["model"], body["messages"], body["seed"] if seeded else 0))

    return FakeOpenAI(reply, **forms)


def config(overrides: tuple[str, ...]):
    """Returns the composed configuration of a small search with a server."""
    return composed("roles=server", *SMALL, *overrides)


def search(folder: Path, api_base: str, *overrides: str, dialogues: int = 2) -> dict:
    """Searches the first dialogues of the sample corpus into `folder`. Returns the summary."""
    roles = [f"roles.{role}.model=openai/{role}" for role in ("seeker", "supporter", "strategist", "judge")]
    cfg = config((f"roles.api_base={api_base}", *roles, *overrides))
    return expand(
        load(cfg.data).dialogues[:dialogues],
        mcts=OmegaConf.to_container(cfg.mcts, resolve=True),
        roles=OmegaConf.to_container(cfg.roles, resolve=True),
        strategies=strategy_set(cfg.data.strategies),
        folder=folder,
        corpus_report={},
        theta=cfg.preferences.theta,
        min_end_visits=cfg.preferences.min_end_visits,
    )


def trees(folder: Path) -> dict[str, bytes]:
    """Returns {name: bytes} of the tree files of a search."""
    return {path.name: path.read_bytes() for path in sorted((folder / "trees").glob("*.json"))}


def journal(folder: Path) -> list[dict]:
    """Returns the complete lines of a search's journal, parsed."""
    path = folder / "calls.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]
