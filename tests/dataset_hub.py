"""A data set of the model hub on a loopback server, with the part of the hub's protocol that its client uses."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeHub:
    """Serves one data set. `commit` replaces its files, and thereby its newest revision; older ones stay."""

    def __init__(self, repository: str = "owner/pairs"):
        self.repository, self.revisions, self.requests = repository, {}, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(self, **files: str | bytes) -> str:
        """Adds a revision with these files and returns its commit; "__" in a name stands for a dot."""
        content = {name.replace("__", "."): data if isinstance(data, bytes) else data.encode() for name, data in files.items()}
        commit = hashlib.sha1(repr(sorted(content.items())).encode(), usedforsecurity=False).hexdigest()
        self.revisions[commit] = self.revisions["main"] = (commit, content)
        return commit

    def _handler(hub):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self, body: bool = True):
                hub.requests.append((self.command, self.path))
                listing, files = f"/api/datasets/{hub.repository}", f"/datasets/{hub.repository}/resolve/"
                if self.path.partition("?")[0].startswith(listing):
                    revision = self.path.partition("?")[0].removeprefix(listing).removeprefix("/revision/") or "main"
                    if revision in hub.revisions:
                        commit, content = hub.revisions[revision]
                        names = [{"rfilename": name} for name in (".gitattributes", "README.md", *content)]
                        return self._send(
                            json.dumps({"id": hub.repository, "sha": commit, "siblings": names}).encode(), commit, body
                        )
                elif self.path.startswith(files):
                    revision, _, name = self.path.removeprefix(files).partition("/")
                    commit, content = hub.revisions.get(revision, ("", {}))
                    if name in content:
                        return self._send(content[name], commit, body)
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_HEAD(self):
                self.do_GET(body=False)

            def _send(self, data: bytes, commit: str, body: bool) -> None:
                self.send_response(200)
                self.send_header("X-Repo-Commit", commit)
                self.send_header("ETag", f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"')
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def log_message(self, *_):
                pass

        return Handler
