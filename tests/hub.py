"""A fake of the model hub on loopback, with the requests that huggingface_hub makes to download a model."""

import json
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class FakeHub:
    """Serves folders as repositories, {"owner/name": folder}; `gated` and `broken` ones answer as the hub does.

    `sent` counts the bytes of each file that was downloaded. Use it in a `with`; `url` is what HF_ENDPOINT is set to.
    """

    def __init__(self, models: Mapping[str, Path], gated: tuple[str, ...] = (), broken: tuple[str, ...] = ()):
        self.models, self.gated, self.broken = models, gated, broken
        self.sent: Counter[str] = Counter()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub._answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request) -> None:
        parts = unquote(urlsplit(request.path).path).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        model, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
        if model in self.broken:
            return self._send(request, 503, b"{}")
        if model in self.gated and (not api or rest[:1] == ["auth-check"]):
            return self._send(request, 403, b"{}", {"X-Error-Code": "GatedRepo"})
        if model not in self.models:
            return self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        folder = self.models[model]
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if api and rest[:1] == ["auth-check"]:
            return self._send(request, 200, b"{}")
        if api and rest[:1] == ["tree"]:
            rows = [{"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": "0" * 40} for f in files]
            return self._send(request, 200, json.dumps(rows).encode())
        if api:
            siblings = [{"rfilename": f, "size": (folder / f).stat().st_size} for f in files]
            shown = {"_id": "1", "id": model, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
            return self._send(request, 200, json.dumps(shown).encode())
        name = "/".join(rest[2:])
        if name not in files:
            return self._send(request, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        body = (folder / name).read_bytes()
        etag = sha256(body).hexdigest()
        if request.command == "GET":
            self.sent[name] += len(body)
        return self._send(request, 200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _send(self, request, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)
