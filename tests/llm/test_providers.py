"""What providers are sent and what their replies cost, as the table in docs/serving.md says; on imitations of their protocols."""

import asyncio

import pytest
from fakes import FakeOpenAI, Reply
from llm.test_client import CHAT, within

from cso_lab.llm.transport import Transport

USAGE = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, "prompt_tokens_details": {"cached_tokens": 500}}
OPENAI = Reply("a", usage=USAGE)
ANTHROPIC = Reply(
    body={
        **{"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "stop_reason": "end_turn"},
        "content": [{"type": "text", "text": "a"}],
        "usage": {"input_tokens": 500, "cache_read_input_tokens": 500, "output_tokens": 10},
    }
)
GEMINI = Reply(
    body={
        "candidates": [{"content": {"role": "model", "parts": [{"text": "a"}]}, "finishReason": "STOP"}],
        "usageMetadata": {
            **{"promptTokenCount": 1000, "cachedContentTokenCount": 500, "totalTokenCount": 1010},
            **{"candidatesTokenCount": 3, "thoughtsTokenCount": 7},
        },
    }
)
REASONING = {"reasoning": {"effort": "none", "exclude": True}}
THINKING = {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}}


@pytest.mark.parametrize(
    ("model", "extra", "reply", "seed", "cost"),
    [
        # 500 + 500 cached prompt tokens, 10 of the reply, in dollars a million
        ("openai/gpt-4o", {"reasoning_effort": "low"}, OPENAI, 5, 500 * 2.5 + 500 * 1.25 + 10 * 10),
        ("anthropic/claude-sonnet-4-5", {"thinking": {"type": "disabled"}}, ANTHROPIC, None, 500 * 3 + 500 * 0.3 + 10 * 15),
        ("gemini/gemini-2.5-flash", THINKING, GEMINI, 5, 500 * 0.3 + 500 * 0.03 + 10 * 2.5),
        ("openrouter/openai/gpt-4o", REASONING, OPENAI, 5, None),
        ("openai/qwen3", {"chat_template_kwargs": {"enable_thinking": False}}, OPENAI, 5, None),
    ],
)
def test_seed_thinking_and_the_price_of_cached_tokens(model, extra, reply, seed, cost):
    config = {"model": model, "temperature": 0.3, "max_tokens": 99, "extra": extra}
    with FakeOpenAI(reply) as server:
        transport = Transport(server.api_base)
        answer = asyncio.run(within(transport, transport.complete("judge", config, CHAT, 5)))
    (body,) = server.requests
    assert body.get("seed", body.get("generationConfig", {}).get("seed")) == seed
    for name, value in extra.items():
        assert body[name] == value or value.items() <= body[name].items()
    assert answer.text == "a" and answer.completion_tokens == 10
    assert answer.cost == (None if cost is None else pytest.approx(cost / 1e6))
