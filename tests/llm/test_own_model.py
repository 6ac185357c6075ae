"""The cell's own model as supporter: what is asked at the same time is answered in one batch."""

import asyncio
import time

import pytest

from cso_lab.core.errors import UserError
from cso_lab.llm.client import Client, Question
from cso_lab.llm.in_process import OWN_MODEL, OWN_SUPPORTER
from cso_lab.llm.transport import Transport

MODEL = {"model": OWN_SUPPORTER, "temperature": 0.8, "max_tokens": 20}


def ask(*texts):
    async def run():
        async with Transport() as transport:
            asked = (transport.complete("supporter", MODEL, [{"role": "user", "content": text}], 7) for text in texts)
            return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(run())


def test_questions_of_one_moment_are_one_batch_and_replies_go_to_their_own():
    batches = []

    def reply(conversations, seeds):
        batches.append(len(conversations))
        return [
            (f"{messages[-1]['content']}!", 3, seed, messages[-1]["content"] == "b")
            for messages, seed in zip(conversations, seeds, strict=True)
        ]

    with OWN_MODEL.serving(reply, batch_size=4):
        replies = ask("a", "b", "c", "d", "e")
    assert batches == [4, 1]
    assert [(each.text, each.prompt_tokens, each.completion_tokens, each.cost, each.cut) for each in replies] == [
        (f"{text}!", 3, 7, 0.0, text == "b") for text in "abcde"
    ]


def test_a_batch_takes_as_long_as_it_takes():
    """A limit of time is for servers: with roles=openai roles.on_policy=true it would have every reply of a slow batch generated again."""
    batches = []

    def reply(conversations, seeds):
        batches.append(len(conversations))
        time.sleep(0.3)
        return [("Go on.", 3, 2, False)] * len(conversations)

    async def run():
        question = Question("k", "d", "supporter", MODEL, [{"role": "user", "content": "a"}], 7, str)
        async with Client(max_concurrency=4, timeout=0.1, max_attempts=2, max_backoff=0) as client:
            return await client.ask(question)

    with OWN_MODEL.serving(reply, batch_size=4):
        assert asyncio.run(run()) == "Go on." and batches == [1]


def test_a_model_that_fails_stops_with_one_line_and_no_reply():
    def fail(conversations, seeds):
        raise RuntimeError("no memory left")

    with OWN_MODEL.serving(fail, batch_size=4):
        assert all(isinstance(each, UserError) and "no memory left" in str(each) for each in ask("a", "b"))


def test_without_a_trained_model_nobody_answers():
    (error,) = ask("a")
    assert isinstance(error, UserError) and "roles=self" in str(error)


@pytest.mark.parametrize("model", ["self/supporter"])
def test_it_costs_nothing(model):
    from cso_lab.llm import prices

    assert prices.cost(model, 1000, 1000) == 0
