"""A server on loopback that speaks /v1/chat/completions, in a process of its own: the same latency for every call."""

import asyncio
import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cso_lab.core.strategies import EXTES

CANNED = {
    "strategist": json.dumps({name: 3 + i for i, name in enumerate(EXTES.names)}),
    "judge": json.dumps({"empathy": 3, "information": 2, "humanoid": 3, "strategy": 4}),
}


@contextmanager
def server(latency: float, thinking: bool) -> Iterator[str]:
    """Its address, while it runs. `latency` in seconds. `thinking`: its models seeker, supporter, strategist and judge answer as the
    simulated players do, by messages and seed; otherwise each always says the same."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(latency, thinking, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def _serve(latency: float, thinking: bool, there) -> None:
    asyncio.run(_answer(latency, _think if thinking else _recite, there))


async def _answer(latency: float, reply, there) -> None:
    from aiohttp import web

    async def completion(request: web.Request) -> web.Response:
        body = await request.json()
        due = asyncio.get_running_loop().time() + latency
        text, usage = await reply(body)
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        answer = {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }
        return web.json_response(answer)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", completion)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    there.send(site._server.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


async def _recite(body: dict) -> tuple[str, dict]:
    text = CANNED.get(body["model"], "That sounds hard, and I am glad you say it.")
    return text, {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


async def _think(body: dict) -> tuple[str, dict]:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    from litellm import ModelResponse

    from cso_lab.roles.simulated.provider import SimulatedPlayers

    answer = await SimulatedPlayers().acompletion(
        model=body["model"],
        messages=body["messages"],
        model_response=ModelResponse(),
        optional_params={"seed": body.get("seed")},
    )
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return answer.choices[0].message.content, {name: getattr(answer.usage, name) for name in names}
