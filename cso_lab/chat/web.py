"""The conversation on a page that only this machine can open: 127.0.0.1, nothing fetched from anywhere, nothing kept.

The page holds the conversation and sends the whole of it with every message, so the server keeps none.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import resources

from aiohttp import web

from cso_lab.chat.partner import Partner, Reply, forced, shares
from cso_lab.chat.texts import Texts
from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import StrategySet

HOST = "127.0.0.1"
_LONGEST_REQUEST = 2**20  # bytes; a long conversation has some ten thousand

_PAGE = resources.files("cso_lab.chat") / "page"
_FILES = {
    # The reports' colours and shapes.
    "/page.css": (resources.files("cso_lab.reporting") / "page" / "page.css", "text/css"),
    "/chat.css": (_PAGE / "chat.css", "text/css"),
    "/chat.js": (_PAGE / "chat.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Nor does the browser keep it.
    "Cache-Control": "no-store",
}


def serve(partner: Partner, texts: Texts, port: int) -> None:
    """Serve the page until Ctrl-C; port 0 is any free one."""
    with _listen(port) as listener:
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        print(f"talk to {partner.name} at {address} (Ctrl-C ends it)", flush=True)
        web.run_app(application(partner, texts), sock=listener, print=None, access_log=None, handle_signals=True)
    print("Left. Nothing of these conversations was saved.")


def application(partner: Partner, texts: Texts) -> web.Application:
    """The page, its files, and POST /reply."""
    served = web.Application(middlewares=[_only_this_page], client_max_size=_LONGEST_REQUEST)
    page = _page(partner, texts)
    model = ThreadPoolExecutor(1)  # one reply at a time

    async def shown(request: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html", headers=_HEADERS)

    async def file(request: web.Request) -> web.Response:
        path, kind = _FILES[request.path]
        return web.Response(text=path.read_text(encoding="utf-8"), content_type=kind, headers=_HEADERS)

    async def reply(request: web.Request) -> web.StreamResponse:
        """JSON lines: {"help": [paragraph]} at once where the message calls for it, then {"reply": ...} or {"error": ...}."""
        answer = web.StreamResponse(headers=_HEADERS | {"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        try:
            history, strategy = _asked(await request.json(), partner.strategies)
            if texts.speaks_of_self_harm(history[-1].text):
                await _line(answer, {"help": texts.help, "after_help": texts.after_help})
            said = await asyncio.get_running_loop().run_in_executor(model, partner.reply, history, strategy)
            await _line(answer, {"reply": _shown(said)})
        except UserError as error:
            await _line(answer, {"error": str(error)})
        except json.JSONDecodeError:
            await _line(answer, {"error": "the request is not valid JSON"})
        await answer.write_eof()
        return answer

    served.router.add_get("/", shown)
    for name in _FILES:
        served.router.add_get(name, file)
    served.router.add_post("/reply", reply)
    return served


@web.middleware
async def _only_this_page(request: web.Request, handler):
    """Refuse what other sites make a browser send here: by another name for this machine, or from another page."""
    _, port = request.transport.get_extra_info("sockname")[:2]
    own = {f"{HOST}:{port}", f"localhost:{port}"}
    origin = request.headers.get("Origin")
    if request.host not in own or (origin is not None and origin.removeprefix("http://") not in own):
        raise web.HTTPForbidden(text=f"open http://{HOST}:{port}/ itself")
    if request.method == "POST" and request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="expected application/json")
    return await handler(request)


def _asked(given: object, strategies: StrategySet) -> tuple[list[Turn], str | None]:
    """The history and the strategy asked for: {"turns": [{"speaker", "text", "strategy"}], "strategy": null or a name}."""
    turns = given.get("turns") if isinstance(given, Mapping) else None
    if not isinstance(turns, list) or not all(map(_is_turn, turns)):
        raise UserError("expected turns, a list of {speaker, text, strategy}")
    speakers = [turn["speaker"] for turn in turns]
    if not speakers or speakers != [(SEEKER, SUPPORTER)[i % 2] for i in range(len(speakers))] or speakers[-1] != SEEKER:
        raise UserError(f"expected turns of {SEEKER} and {SUPPORTER} in alternation, the {SEEKER}'s first and last")
    if not turns[-1]["text"].strip():
        raise UserError("the message is empty")
    wanted = given.get("strategy")
    return (
        [Turn(turn["speaker"], turn["text"], turn.get("strategy") and forced(turn["strategy"], strategies)) for turn in turns],
        forced(str(wanted), strategies) if wanted else None,
    )


def _is_turn(turn: object) -> bool:
    return (
        isinstance(turn, Mapping)
        and isinstance(turn.get("speaker"), str)
        and isinstance(turn.get("text"), str)
        and isinstance(turn.get("strategy"), str | None)
    )


def _shown(reply: Reply) -> dict:
    # A list, because the order of the strategies is part of what is shown.
    listed = [[name, value] for name, value in reply.probabilities.items()]
    return asdict(reply) | {"probabilities": listed, "shares": shares(reply)}


async def _line(answer: web.StreamResponse, value: object) -> None:
    await answer.write((json.dumps(value, ensure_ascii=False) + "\n").encode())


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
