"""The conversation on a web page that only this machine can open (127.0.0.1); it loads nothing from elsewhere.

The page holds the conversation and sends the whole of it with every message; the server stores nothing.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import resources

from aiohttp import web

from cso_lab.chat.partner import Partner, Reply, find_strategy, mass_note
from cso_lab.chat.texts import Texts
from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import StrategySet

HOST = "127.0.0.1"
_MAX_REQUEST = 2**20  # bytes; a long conversation has about ten thousand

_PAGE = resources.files("cso_lab.chat") / "page"
_FILES = {
    # The style sheet of the reports.
    "/page.css": (resources.files("cso_lab.reporting") / "page" / "page.css", "text/css"),
    "/chat.css": (_PAGE / "chat.css", "text/css"),
    "/chat.js": (_PAGE / "chat.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # The browser must not store the conversation either.
    "Cache-Control": "no-store",
}


def serve(partner: Partner, texts: Texts, port: int) -> None:
    """Serves the page until Ctrl-C; port 0 is any free one. Raises UserError if the port cannot be opened."""
    with _listen(port) as listener:
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        print(f"talk to {partner.name} at {address} (Ctrl-C ends it)", flush=True)
        web.run_app(application(partner, texts), sock=listener, print=None, access_log=None, handle_signals=True)
    print("Left. Nothing of these conversations was saved.")


def application(partner: Partner, texts: Texts) -> web.Application:
    """Returns the web application: the page, its files, and POST /reply."""
    app = web.Application(middlewares=[_only_this_page], client_max_size=_MAX_REQUEST)
    page = _page(partner, texts)
    executor = ThreadPoolExecutor(1)  # one reply at a time

    async def index(request: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html", headers=_HEADERS)

    async def file(request: web.Request) -> web.Response:
        path, kind = _FILES[request.path]
        return web.Response(text=path.read_text(encoding="utf-8"), content_type=kind, headers=_HEADERS)

    async def reply(request: web.Request) -> web.StreamResponse:
        """Responds with JSON lines: {"help": [paragraph]} at once if the message mentions self-harm, then {"reply"} or {"error"}."""
        response = web.StreamResponse(headers=_HEADERS | {"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            history, strategy = _parse_request(await request.json(), partner.strategies)
            if texts.speaks_of_self_harm(history[-1].text):
                await _write_line(response, {"help": texts.help, "after_help": texts.after_help})
            model_reply = await asyncio.get_running_loop().run_in_executor(executor, partner.reply, history, strategy)
            await _write_line(response, {"reply": _reply_json(model_reply)})
        except UserError as error:
            await _write_line(response, {"error": str(error)})
        except json.JSONDecodeError:
            await _write_line(response, {"error": "the request is not valid JSON"})
        await response.write_eof()
        return response

    app.router.add_get("/", index)
    for name in _FILES:
        app.router.add_get(name, file)
    app.router.add_post("/reply", reply)
    return app


@web.middleware
async def _only_this_page(request: web.Request, handler):
    """Refuses requests that other sites make a browser send: to another name of this machine, or from another page."""
    _, port = request.transport.get_extra_info("sockname")[:2]
    hosts = {f"{HOST}:{port}", f"localhost:{port}"}
    origin = request.headers.get("Origin")
    if request.host not in hosts or (origin is not None and origin.removeprefix("http://") not in hosts):
        raise web.HTTPForbidden(text=f"open http://{HOST}:{port}/ itself")
    if request.method == "POST" and request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="expected application/json")
    return await handler(request)


def _parse_request(body: object, strategies: StrategySet) -> tuple[list[Turn], str | None]:
    """Returns the history and the strategy in {"turns": [{"speaker", "text", "strategy"}], "strategy": null or a name}.

    Raises UserError if the body has another form.
    """
    turns = body.get("turns") if isinstance(body, Mapping) else None
    if not isinstance(turns, list) or not all(map(_is_turn, turns)):
        raise UserError("expected turns, a list of {speaker, text, strategy}")
    speakers = [turn["speaker"] for turn in turns]
    if not speakers or speakers != [(SEEKER, SUPPORTER)[i % 2] for i in range(len(speakers))] or speakers[-1] != SEEKER:
        raise UserError(f"expected turns of {SEEKER} and {SUPPORTER} in alternation, the {SEEKER}'s first and last")
    if not turns[-1]["text"].strip():
        raise UserError("the message is empty")
    history = [
        Turn(turn["speaker"], turn["text"], turn.get("strategy") and find_strategy(turn["strategy"], strategies))
        for turn in turns
    ]
    strategy = body.get("strategy")
    return history, find_strategy(str(strategy), strategies) if strategy else None


def _is_turn(turn: object) -> bool:
    return (
        isinstance(turn, Mapping)
        and isinstance(turn.get("speaker"), str)
        and isinstance(turn.get("text"), str)
        and isinstance(turn.get("strategy"), str | None)
    )


def _reply_json(reply: Reply) -> dict:
    # A list, because the page shows the strategies in this order, which a JSON object does not guarantee.
    probabilities = [[name, value] for name, value in reply.probabilities.items()]
    return asdict(reply) | {"probabilities": probabilities, "shares": mass_note(reply)}


async def _write_line(response: web.StreamResponse, value: object) -> None:
    await response.write((json.dumps(value, ensure_ascii=False) + "\n").encode())


def _page(partner: Partner, texts: Texts) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("cso_lab.chat", "page"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("chat.html.j2").render(
        name=partner.name, notice=texts.notice, strategies=partner.strategies.descriptions
    )


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise UserError(
            f"cannot open the page at {HOST}:{port} ({error.strerror}): give another --port, or 0 for any"
        ) from None
