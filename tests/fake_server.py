"""An OpenAI-compatible server for the tests of `serving`, as a program: `python fake_server.py PORT FOLDER MODE`.

MODE is what it does: "good" answers; "deaf" never becomes ready; "dying" ends with code 3 before that, "brief" with code 4 after its first
reply. It prints the files of FOLDER and its environment. A process of its own sleeps beside it, as workers of real servers do; the file
`pids` beside FOLDER names both.
"""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

port, folder, mode = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._send({"status": "ok"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = f"(Affirmation) {body['model']}, {len(body['messages'])} messages"
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        self._send({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
        if mode == "brief":
            print("out of memory", flush=True)
            os._exit(4)

    def _send(self, answer: dict):
        payload = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)
        self.wfile.flush()


print("loading", sorted(file.name for file in folder.glob("*")), dict(os.environ), flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
folder.with_name("pids").write_text(f"{os.getpid()} {child.pid}", encoding="utf-8")
if mode == "dying":
    print("no room\nfor the weights\n", flush=True)
    sys.exit(3)
if mode == "deaf":
    time.sleep(600)
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
