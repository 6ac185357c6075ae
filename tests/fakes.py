"""Fakes of external systems: role players that answer from tables, and an OpenAI-compatible server on loopback."""

import asyncio
import json
import random
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from cso_lab.core.records import SUPPORTER, Dialogue, SeekerReply, Turn
from cso_lab.llm.structured import PROBE_TEXT

if TYPE_CHECKING:
    from fake_batches import FakeBatches

SCORES = {"A": 1, "B": 0, "C": 0}


def judged(score: int) -> dict[str, int]:
    """Returns the same score in all four criteria, whose reward is `score` - 3 by eq. 2."""
    return dict.fromkeys("EIHS", score)


def path_of(history: Sequence[Turn]) -> str:
    """Returns the strategies of the supporter turns so far, as in "A.B"; an unlabelled turn is "-"."""
    return ".".join(turn.strategy or "-" for turn in history if turn.speaker == SUPPORTER)


@dataclass
class ScriptedRoles:
    """The four roles, which answer from tables by the path of strategies so far. A path that is not in a table has a default answer.

    An exception in a table is raised. `slow` delays every answer by a random time. `show_draw` adds the draw to the seeker's and the
    supporter's texts. `calls` lists (role, path, draw) and `shown` (role, history), both in the order of the calls; `cancelled` lists the
    (role, path) of calls that were cancelled.
    """

    strategist_says: Mapping[str, dict | Exception] = field(default_factory=dict)
    judge_says: Mapping[str, dict | Exception] = field(default_factory=dict)
    seeker_says: Mapping[str, SeekerReply | Exception] = field(default_factory=dict)
    supporter_says: Mapping[str, str | Exception] = field(default_factory=dict)
    slow: random.Random | None = None
    show_draw: bool = False
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    shown: list[tuple[str, tuple[Turn, ...]]] = field(default_factory=list)
    cancelled: list[tuple[str, str]] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Returns {role: number of calls}."""
        return dict(Counter(role for role, _, _ in self.calls))

    async def seeker(self, dialogue: Dialogue, history, draw: str) -> SeekerReply:
        """Returns the seeker's reply; by default "k:PATH"."""
        path = path_of(history)
        return await self._answer(
            "seeker", path, history, draw, self.seeker_says, SeekerReply(self._line(f"k:{path}", draw), False)
        )

    async def supporter(self, dialogue: Dialogue, history, strategy: str, draw: str) -> str:
        """Returns the supporter's text; by default "s:PATH", where PATH includes `strategy`."""
        path = path_of((*history, Turn(SUPPORTER, "", strategy)))
        return await self._answer("supporter", path, history, draw, self.supporter_says, self._line(f"s:{path}", draw))

    async def strategist(self, dialogue: Dialogue, history, draw: str) -> dict[str, int]:
        """Returns a score for each strategy; by default SCORES."""
        return await self._answer("strategist", path_of(history), history, draw, self.strategist_says, SCORES)

    async def judge(self, dialogue: Dialogue, history, draw: str) -> dict[str, int]:
        """Returns a score for each criterion; by default 4."""
        return await self._answer("judge", path_of(history), history, draw, self.judge_says, judged(4))

    def _line(self, line: str, draw: str) -> str:
        return f"{line} {draw}" if self.show_draw else line

    async def _answer(self, role: str, path: str, history, draw: str, table: Mapping, default):
        self.calls.append((role, path, draw))
        self.shown.append((role, tuple(history)))
        answer = table.get(path, default)
        try:
            await asyncio.sleep(self.slow.random() / 500 if self.slow else 0)
            while answer is NEVER:
                await asyncio.sleep(1)
        except asyncio.CancelledError:
            self.cancelled.append((role, path))
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer


NEVER = object()
"""In a table of `ScriptedRoles`: the call never returns."""


@dataclass(frozen=True)
class Reply:
    """The fake server's response to one request: after `delay` seconds, `status` with a completion of `text`, or with `body`.

    With `cut` the connection is closed in the middle of the response. `reasoning` stands in the message beside the text, in a field of its
    own.
    """

    text: str | None = None
    status: int = 200
    delay: float = 0.0
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    finish_reason: str = "stop"
    reasoning: Mapping[str, str] = field(default_factory=dict)
    usage: Mapping[str, int] | None = field(
        default_factory=lambda: {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    )


def failure(status: int, message: str = "no", delay: float = 0.0, **headers: str) -> Reply:
    """Returns an error response; header names are given with underscores."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(
        status=status, delay=delay, headers=headers, body={"error": {"message": message, "type": "error", "code": str(status)}}
    )


def anthropic_message(text: str) -> Reply:
    """A completion as Anthropic's protocol words it."""
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "stop_reason": "end_turn"}
    usage = {"input_tokens": 7, "output_tokens": 3}
    return Reply(body=message | {"content": [{"type": "text", "text": text}], "usage": usage})


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # the default of 5 loses connections when many are made at once

    def handle_error(self, request, client_address):
        """Prints errors as the base class does, except those of clients that were killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class FakeOpenAI:
    """A real HTTP server on loopback that speaks /v1/chat/completions, and with `batches` /v1/files and /v1/batches.

    Each request gets the next of `replies`, and the last one is repeated; a reply may also be a function of the request body.
    `requests` are the bodies received, `headers` and `paths` their headers and paths; `under_way` is the number of requests without a
    response so far, `most` its maximum. `models` are what /v1/models lists, None: it has no such route; `strict`: it has no other paths;
    `certificate`: a file of it and its key, to speak https. `gets` are the paths of what was not posted.

    `forms` are the types of `response_format` it takes; it follows a schema, and meets any other form with `refusal`. Questions that
    only ask for what it takes are in `probes` and not in `requests`.
    """

    def __init__(
        self,
        *replies,
        batches: "FakeBatches | None" = None,
        models: Sequence[str] | None = None,
        strict: bool = False,
        certificate: Path | None = None,
        forms: Sequence[str] = (),
        refusal: Reply | None = None,
    ):
        self.batches = batches
        self.replies = list(replies)
        self.models, self.strict, self.certificate = models, strict, certificate
        self.forms, self.refusal = forms, refusal or failure(400, "response_format of this type is not supported")
        self.gets: list[str] = []
        self.requests: list[dict] = []
        self.probes: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.under_way = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> "FakeOpenAI":
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else every answer waits 40 ms for the client to acknowledge its head

            def do_POST(self):
                if not self.path.endswith("/chat/completions") and fake.batches:
                    return self._batches(self.rfile.read(int(self.headers["Content-Length"])))
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = fake._start_request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                time.sleep(reply.delay)
                fake._finish_request()
                self._send(reply, body)

            def do_GET(self):
                if fake.batches:
                    return self._batches(b"")
                fake.gets.append(self.path)
                if self.path == "/v1/models" and fake.models is not None:
                    self._send(Reply(body={"object": "list", "data": [{"id": name} for name in fake.models]}), {})
                else:
                    self._send(Reply(status=404, body={"detail": "Not Found"}), {})

            def _batches(self, payload: bytes):
                fake.batches.headers.append({name.lower(): value for name, value in self.headers.items()})
                answer = fake.batches.answer(self.command, self.path, payload)
                if answer is None:  # made, and nobody hears of it
                    self.close_connection = True
                    return
                time.sleep(answer.delay)
                self._send(answer, {})

            def _send(self, reply: Reply, request: dict):
                value = reply.body if reply.body is not None else fake._completion(reply, request)
                payload = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                try:
                    self.send_response(reply.status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(payload)))
                    for name, text in reply.headers.items():
                        self.send_header(name, text)
                    self.end_headers()
                    if reply.cut:
                        payload, self.close_connection = payload[: len(payload) // 2], True
                    self.wfile.write(payload)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client has given up waiting

            def log_message(self, *_):
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def api_base(self) -> str:
        """The address that clients are configured with."""
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self._server.server_port}/v1"

    def _start_request(self, path: str, headers: dict, body: dict) -> Reply:
        with self._lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            form = body.get("response_format")
            refused = form is not None and form["type"] not in self.forms
            text = body["messages"][-1]["content"] if "messages" in body else ""
            if isinstance(text, str) and text.startswith(PROBE_TEXT):
                self.probes.append(body)
                return self.refusal if refused else Reply(text.removeprefix(PROBE_TEXT).strip())
            self.paths.append(path)
            self.headers.append(headers)
            self.requests.append(body)
            if self.strict and path != "/v1/chat/completions":
                return Reply(status=404, body={"detail": "Not Found"})
            if refused:
                return self.refusal
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        reply = reply(body) if callable(reply) else reply
        return followed(reply, form["json_schema"]["schema"]) if form and form["type"] == "json_schema" else reply

    def _finish_request(self):
        with self._lock:
            self.under_way -= 1

    @staticmethod
    def _completion(reply: Reply, request: dict) -> dict:
        message = {"role": "assistant", "content": reply.text, **reply.reasoning}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
        completion = {"id": "c", "object": "chat.completion", "created": 1, "model": request["model"], "choices": [choice]}
        return completion | ({"usage": dict(reply.usage)} if reply.usage else {})


def followed(reply: Reply, schema: Mapping) -> Reply:
    """The reply as a model writes it that can write nothing but what fits the schema."""
    if reply.text is None:
        return reply
    try:
        given = json.loads(reply.text)
    except ValueError:
        given = {}
    fitting = {}
    for name, value in schema["properties"].items():
        if "enum" not in value and "minimum" not in value:
            fitting[name] = given.get(name, {"string": "text", "boolean": False}[value["type"]])
            continue
        allowed = value.get("enum") or range(value["minimum"], value["maximum"] + 1)
        fitting[name] = given[name] if given.get(name) in allowed else allowed[0]
    return replace(reply, text=json.dumps(fitting))


class FourPlayers:
    """The replies of a fake server that plays all four roles; it recognizes the role by the first line of the system prompt.

    An answer is a function of the user prompt. The seeker ends the dialogue after `patience` supporter turns. `asked` counts the
    questions by role.
    """

    def __init__(self, strategies: Sequence[str], patience: int = 5):
        self.strategies, self.patience = strategies, patience
        self.asked: Counter[str] = Counter()
        roles = Path(__file__).parents[1] / "conf" / "roles"
        self._opening = {
            role: yaml.safe_load((roles / role / "default.yaml").read_text(encoding="utf-8"))["system"].splitlines()[0]
            for role in ("seeker", "supporter", "strategist", "judge")
        }

    def __call__(self, request: dict) -> Reply:
        """Returns the reply of the role that a request body is for."""
        system, query = (message["content"] for message in request["messages"])
        (role,) = (role for role, opening in self._opening.items() if system.startswith(opening))
        self.asked[role] += 1
        return Reply(getattr(self, f"_{role}")(query, random.Random(query)))

    def _seeker(self, query: str, rng: random.Random) -> str:
        leaves = query.count("Supporter: ") >= self.patience
        return "Thank you. </end/>" if leaves else f"I think of it {rng.randrange(100)} times a day."

    def _supporter(self, query: str, rng: random.Random) -> str:
        return f"Tell me about the last {rng.randrange(100)} days."

    def _strategist(self, query: str, rng: random.Random) -> str:
        return json.dumps({name: rng.randrange(11) for name in self.strategies})

    def _judge(self, query: str, rng: random.Random) -> str:
        return json.dumps({name: rng.randrange(5) for name in ("empathy", "information", "humanoid", "strategy")})


ALGORITHMS = {"base": "base", "sft": "SFT", "dpo": "CSO-DPO", "kto": "CSO-KTO"}


def metrics(
    backbone="smollm2",
    algo="dpo",
    mode="lora",
    seed=0,
    q=20.0,
    b=1.0,
    n=210,
    context=None,
    intervals=None,
    per_turn=None,
    **cell,
) -> dict:
    """Returns the content of a run's metrics.json; `cell` and `context` are added to the nodes of these names."""
    trained = algo != "base"
    return {
        "cell": {
            "backbone": backbone,
            "label": {"smollm2": "SmolLM2-135M-Instruct", "llama": "LLaMA-3.1-8B-Instruct"}.get(backbone, backbone),
            "algo": algo,
            "algo_label": ALGORITHMS.get(algo, algo),
            "mode": mode if trained else None,
            "mode_label": {"lora": "LoRA", "full": "Full"}[mode] if trained else None,
            "decoding": "plain",
            "start_from": "base",
            "seed": seed if trained else None,
            **cell,
        },
        "Q": q,
        "B": b,
        "Q_W": 30.0,
        "R-L": 15.5,
        "n": n,
        "unparsed": 4,
        "intervals": {"Q": [q - 3, q + 3], "B": [0.5, 2.645]} if intervals is None else intervals,
        "strategies": {"Affirmation": {"f1": 40.0, "predicted": 9}, "Share Information": {"f1": 0.0, "predicted": 0}},
        "context": {"data": "sample", "constrain": "format", "max_new_tokens": 64, **(context or {})},
        **({"per_turn": per_turn} if per_turn else {}),
    }
