"""The batch interface of a fake server (`fakes.FakeOpenAI`): its batches end, fail and expire as a test says."""

import json
import threading
from collections.abc import Sequence

from fakes import FakeOpenAI, Reply, failure


class FakeBatches:
    """The batch interface of a fake server. A batch ends when it has been looked at `polls` times.

    `reply`: of the request body, what a request in a batch gets; None: it never gets to it. `ends`: how the batches end, one each, the
    last for ever. `lost`: how many times a batch is made and its maker gets no answer. `refuses`: the answer to every request that is
    made of the interface. `names` lists the batches by the name in their metadata, `lines` the requests of each, `looks` how often any
    was looked at.
    """

    def __init__(
        self, reply, polls: int = 3, ends: Sequence[str] = ("completed",), lost: int = 0, refuses: Reply | None = None
    ):
        self.reply, self.polls, self.ends, self.lost, self.refuses = reply, polls, list(ends), lost, refuses
        self.names: list[str] = []
        self.lines: list[list[dict]] = []
        self.looks = 0
        self.headers: list[dict[str, str]] = []
        self.error = {"code": "invalid", "message": "The file holds two models", "line": 2}  # of a batch that failed
        self.hold = self.hold_upload = 0.0  # seconds until the answer to a batch that was made, and to a file
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict] = {}
        self._left: dict[str, int] = {}
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, payload: bytes) -> Reply | None:
        """What the server says; None: nothing, it hangs up."""
        if self.refuses:
            return self.refuses
        path, _, query = path.removeprefix("/v1/").partition("?")
        kind, _, name = path.partition("/")
        with self._lock:
            if kind == "files":
                return self._upload(payload) if method == "POST" else Reply(body=self._files[name.partition("/")[0]].decode())
            if method == "POST":
                batch = self._make(json.loads(payload))
                if self.lost:
                    self.lost -= 1
                    return None
                return Reply(body=batch, delay=self.hold)
            if name:
                return self._look(name) if name in self._batches else failure(404, "no such batch")
            return self._list(query)

    def _upload(self, payload: bytes) -> Reply:
        name = f"file-{len(self._files)}"
        head, _, _ = payload.partition(b"\r\n")
        (part,) = (part for part in payload.split(head) if b"filename=" in part)
        self._files[name] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return Reply(body={"id": name, "object": "file", "purpose": "batch"}, delay=self.hold_upload)

    def _make(self, body: dict) -> dict:
        name = f"batch_{len(self.names)}"
        lines = [json.loads(line) for line in self._files[body["input_file_id"]].splitlines()]
        assert body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
        assert all(line["url"] == body["endpoint"] and line["method"] == "POST" for line in lines)
        self.names.append(body["metadata"]["cso_lab"])
        self.lines.append(lines)
        self._left[name] = self.polls
        self._batches[name] = {"id": name, "object": "batch", "status": "validating", "metadata": body["metadata"]}
        return self._batches[name]

    def _look(self, name: str) -> Reply:
        batch, number = self._batches[name], int(name.partition("_")[2])
        self.looks += 1
        self._left[name] -= 1
        lines = self.lines[number]
        if self._left[name] > 0:
            stages = ("in_progress", "finalizing")
            batch["status"] = stages[self._left[name] == 1]
            batch["request_counts"] = {"total": len(lines), "completed": len(lines) // 2, "failed": 0}
        elif self._left[name] == 0:
            batch["status"] = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
            if batch["status"] == "failed":
                batch["errors"] = {"data": [self.error]}
            else:
                self._work_off(name, batch, lines)
        return Reply(body=batch)

    def _work_off(self, name: str, batch: dict, lines: list[dict]):
        files: dict[str, list[dict]] = {"output": [], "error": []}
        for line in reversed(lines):  # a provider keeps no order
            reply = self.reply(line["body"])
            if reply is None:
                error = {"code": f"batch_{batch['status']}", "message": "This request was not executed."}
                files["error"].append({"custom_id": line["custom_id"], "response": None, "error": error})
                continue
            body = reply.body if reply.body is not None else FakeOpenAI._completion(reply, line["body"])
            response = {"status_code": reply.status, "body": body}
            kind = "output" if reply.status == 200 else "error"
            files[kind].append({"custom_id": line["custom_id"], "response": response, "error": None})
        for kind, results in files.items():
            if results:
                batch[f"{kind}_file_id"] = f"{kind}-{name}"
                self._files[f"{kind}-{name}"] = b"".join(json.dumps(result).encode() + b"\n" for result in results)
        batch["request_counts"] = {"completed": len(files["output"]), "failed": len(files["error"]), "total": len(lines)}

    def _list(self, query: str) -> Reply:
        """One batch a page, the newest first."""
        names = list(reversed(self._batches))
        after = dict(pair.split("=") for pair in query.split("&")).get("after")
        page = names[names.index(after) + 1 :][:1] if after else names[:1]
        data = [self._batches[name] for name in page]
        return Reply(body={"object": "list", "data": data, "has_more": bool(page) and page[-1] != names[-1]})
