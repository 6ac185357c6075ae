"""A server that a run starts for a model of its own, on a port of the loopback device, and that ends with the run."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cso_lab.config.serving import fill
from cso_lab.core import guarded_command
from cso_lab.core.errors import UserError
from cso_lab.llm.errors import api_keys, one_line

HOST = "127.0.0.1"
_PORTS_TRIED = 3
_LOG_TAIL = 65536  # bytes


@dataclass(frozen=True)
class OwnServer:
    """Where a started server is asked: `model` is the name by which requests ask for its model."""

    model: str
    api_base: str


def check_server(serving: Mapping) -> None:
    """Raises UserError if the server of the config node `serving` cannot be started: its program or a module is missing, or its port is
    in use."""
    program, what = _program(serving["command"]), f"serving={serving['name']}"
    install = f": {serving['install']}" if serving["install"] else ""
    if program is None:
        raise UserError(f"{what}: there is no command {serving['command']!r} here{install}; or give serving.command=PATH")
    beside = Path(program).parent == Path(sys.executable).parent
    if missing := [name for name in serving["requires"] if beside and find_spec(name) is None]:
        raise UserError(f"{what} needs {', '.join(missing)}, not installed here{install}")
    if serving["port"] is not None and not _is_free(serving["port"]):
        raise UserError(
            f"serving.port={serving['port']}: {HOST}:{serving['port']} is in use; give another, or serving.port=null for any free one"
        )


@contextmanager
def own_server(serving: Mapping, values: Mapping[str, object], log: Path) -> Iterator[OwnServer]:
    """Starts the server of the config node `serving`, waits until it is ready, and ends it and all its processes at the end.

    They also end with this process, however that ends. `values` are those of the fields in its arguments, but for the port. What the
    server prints is in `log`. Raises UserError, with the log's last line, if it is not ready within `serving.timeout`, or ends early; an
    error of the block that may come of its end says so too.
    """
    check_server(serving)
    process, port = _start(serving, values, log)
    try:
        yield OwnServer(fill(serving["request_model"], {**values, "port": port}), f"http://{HOST}:{port}/v1")
    except Exception as error:
        if process.poll() is None:
            raise
        raise UserError(f"{one_line(error)}; {_ended(serving, process, log)}") from error
    finally:
        _end(process)


def _start(serving: Mapping, values: Mapping[str, object], log: Path) -> tuple[subprocess.Popen, int]:
    """Returns the process of a server that is ready, and its port."""
    for attempt in range(1, _PORTS_TRIED + 1):
        port = serving["port"] or _free_port()
        process = _popen(serving, {**values, "port": port}, log)
        try:
            if _wait_until_ready(process, serving, port, log):
                return process, port
            # Between being chosen and being listened at, a free port may become another program's.
            if serving["port"] or _is_free(port) or attempt == _PORTS_TRIED:
                raise UserError(f"{_ended(serving, process, log)} before it was ready")
        except BaseException:
            _end(process)
            raise
        _end(process)
    raise AssertionError("the last attempt returns or raises")


def _popen(serving: Mapping, values: Mapping[str, object], log: Path) -> subprocess.Popen:
    arguments = [fill(argument, values) for argument in (*serving["arguments"], *serving["extra_arguments"])]
    command = [_program(serving["command"]), *arguments]
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-I", guarded_command.__file__, *command],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches the run alone, which ends the server once it has finished with it
        )


def _environment() -> dict[str, str]:
    """Returns the environment of this process, without keys, which a server could log; its model lies on the disk."""
    keys = api_keys()
    return {name: value for name, value in os.environ.items() if name not in keys} | {
        "PATH": _search_path(),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _wait_until_ready(process: subprocess.Popen, serving: Mapping, port: int, log: Path) -> bool:
    """Returns True once the server is ready; False if it ended before. Raises UserError if it takes too long."""
    address, deadline = f"http://{HOST}:{port}{serving['health']}", time.monotonic() + serving["timeout"]
    while process.poll() is None:
        if _answers(address):
            # Asked again, since what answered may be another program that took the port.
            return process.poll() is None
        if time.monotonic() > deadline:
            raise UserError(
                f"serving={serving['name']}: no answer at {address} within {serving['timeout']:g} s (serving.timeout);"
                f" {_last_line(log)}"
            )
        time.sleep(0.2)
    return False


def _answers(address: str) -> bool:
    """Returns whether a GET of `address`, without any proxy, is answered with status 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=5) as response:
            return response.status == 200
    except (OSError, ValueError):  # refused, timed out, another status, or no HTTP at all
        return False


def _ended(serving: Mapping, process: subprocess.Popen, log: Path) -> str:
    return f"serving={serving['name']}: the server ended with exit code {process.poll()}, {_last_line(log)}"


def _last_line(log: Path) -> str:
    """Returns in words what the last line of the log is."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").replace("\r", "\n").split("\n")]
    last = next((line for line in reversed(lines) if line), None)
    return f"its log {log} is empty" if last is None else f"last line of its log {log}: {one_line(last)}"


def _end(process: subprocess.Popen) -> None:
    process.stdin.close()
    try:
        process.wait(timeout=guarded_command.GRACE + 5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _program(command: str) -> str | None:
    """Returns the path of a command that lies beside this Python or on the search path; None if there is none."""
    return shutil.which(command, path=_search_path())


def _search_path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return listener.getsockname()[1]


def _is_free(port: int) -> bool:
    """Returns whether nothing listens at the port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0
