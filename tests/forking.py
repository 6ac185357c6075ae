"""Python processes for tests that need not import the large packages again: a server imports them once and forks.

Importing them takes longer than most runs that tests start. What comes out is a process like any other, a child of the test's, with an exit
code, signals, pipes and a group of its own, and it imports the project's own modules itself. Only under pytest-xdist: a server pays off
after a few processes, and a test that is run alone starts plain ones.
"""

import ctypes
import importlib
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

# What a cell of all stages imports; no package of this project.
_PACKAGES = (
    *("hydra.main", "datasets", "torch", "transformers", "trl", "peft", "deepspeed", "litellm", "wandb", "evaluate"),
    *(
        "sklearn.metrics",
        "nltk",
        "plotly.graph_objects",
        "rich.progress",
        "scipy.stats",
        "sacrebleu",
        "rouge_score.rouge_scorer",
    ),
    *("transformers.models.auto.modeling_auto", "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer"),
)
# What none of them reads when it is imported, and what libraries set in the test's own process. A process that differs from the server in
# anything else starts anew.
_MAY_DIFFER = ("HOME", "PYTHONPATH", "PYTEST_", "OPENAI_", "WANDB_", "HYDRA_", "HF_TOKEN")
_BY_LIBRARIES = ("KMP_", "PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR")
# As the project sets them, where they are not set, before it imports these packages.
_SET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "DS_ACCELERATOR": "cpu",
    "GOMP_SPINCOUNT": "10000",
}
_ENVIRONMENT = dict(os.environ)  # before any test changes it
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)


class Popen(subprocess.Popen):
    """subprocess.Popen that forks for a command [sys.executable, FILE or -m MODULE or -c CODE, ARGUMENT...]."""

    def _execute_child(self, *values):
        given = dict(zip(inspect.signature(super()._execute_child).parameters, values, strict=True))
        if not _forkable(given):
            return super()._execute_child(*values)
        streams = [(given["p2cread"], 0), (given["c2pwrite"], 1), (given["errwrite"], 2)]
        request = {
            "arguments": list(map(str, given["args"][1:])),
            "environment": dict(os.environ if given["env"] is None else given["env"]),
            "folder": os.path.abspath(given["cwd"] or "."),
            "session": given["start_new_session"],
        }
        channel = _server()
        # The child of a process that has ended becomes a child of ours.
        ctypes.CDLL(None).prctl(_SUBREAPER, 1)
        try:
            files = [own if file == -1 else file for file, own in streams]
            socket.send_fds(channel, [json.dumps(request).encode()], files)
            self.pid = max(int(channel.recv(100)) for _ in range(2))
        finally:
            ctypes.CDLL(None).prctl(_SUBREAPER, 0)
        self._child_created = True
        self._close_pipe_fds(*(given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")))


def _forkable(given: dict) -> bool:
    """Returns whether a process can be forked, of Popen's arguments for it."""
    command = given["args"]
    of_python = isinstance(command, list) and command[0] == sys.executable and str(command[1]).endswith((".py", "-m", "-c"))
    special = given["preexec_fn"] or given["pass_fds"] or given["shell"] or given["umask"] != -1
    # CUDA does not survive a fork.
    return "PYTEST_XDIST_WORKER" in os.environ and of_python and not special and not os.path.exists("/dev/nvidiactl")


def run(command: list, timeout: float | None = None, said: str = "", **settings) -> subprocess.CompletedProcess:
    """Runs a command with `said` as its input to its end and returns its exit code and, as text, its output.

    `settings` are passed to Popen. Raises subprocess.TimeoutExpired after `timeout` seconds and kills the process.
    """
    with Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    ) as process:
        try:
            output, errors = process.communicate(said, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


@cache
def _server() -> socket.socket:
    """Starts the server of this process, which ends with it, and returns the way to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        subprocess.Popen(command, pass_fds=[theirs.fileno()], env=_ENVIRONMENT)
    return ours


def _serve(channel: socket.socket) -> dict:
    """Forks for every request, and returns the request in the process that is to answer it."""
    while True:
        message, files, _, _ = socket.recv_fds(channel, 1 << 20, 3)
        if not message:
            sys.exit()
        between = os.fork()
        if not between:
            if os.fork():
                os._exit(0)
            break
        os.waitpid(between, 0)
        channel.send(b"0")
        for file in files:
            os.close(file)
    request = json.loads(message)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    if request["session"]:
        os.setsid()
    channel.send(str(os.getpid()).encode())
    channel.close()
    return request


def _become(request: dict) -> None:
    """Goes on as `python ARGUMENTS` in the request's folder and environment."""
    arguments, environment = request["arguments"], request["environment"]
    os.chdir(request["folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    differing = dict((_SET | environment).items() ^ (_SET | _ENVIRONMENT).items())
    unlike = [name for name in differing if not name.startswith(_MAY_DIFFER + _BY_LIBRARIES)]
    before, paths = (list(filter(None, of.get("PYTHONPATH", "").split(os.pathsep))) for of in (_ENVIRONMENT, environment))
    names = {file.stem for path in set(paths) - set(before) if os.path.isdir(path) for file in Path(path).iterdir()}
    if unlike or names & {"sitecustomize", *sys.modules}:
        os.execve(sys.executable, [sys.executable, *arguments], environment)
    os.environ.clear()
    os.environ.update(environment)
    rest = [path for path in sys.path if path not in before]
    option = arguments[0] if arguments[0] in ("-m", "-c") else None
    first = {"-m": os.getcwd(), "-c": "", None: os.path.dirname(os.path.abspath(arguments[0]))}[option]
    sys.path[:] = [first, *paths, *rest]
    sys.path_importer_cache.clear()
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    if option is None:
        sys.argv[:] = arguments
        runpy.run_path(arguments[0], run_name="__main__")
    elif option == "-m":
        sys.argv[:] = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    import atexit
    import gc
    import random
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(_SET | _ENVIRONMENT)
    for package in _PACKAGES:
        importlib.import_module(package)
    gc.collect()
    gc.freeze()
    way = socket.socket(fileno=int(sys.argv[1]))
    asked = _serve(way)
    random.seed()
    code = 0
    try:
        _become(asked)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    # What an interpreter does at its end, but for taking apart each module, which takes longest.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)
