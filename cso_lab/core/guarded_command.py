"""Runs a command as a program of its own that ends with the process which started it: `python -I guarded_command.py COMMAND ...`.

Standard input is a pipe from that process, to which nothing is written. The system closes it however the process ends, also by kill -9.
The command then gets SIGTERM, and SIGKILL after a while, with all processes of its group. Imports nothing of the project.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 10
"""Seconds between SIGTERM and SIGKILL."""


def main(command: list[str]) -> int:
    """Returns the exit code of the command; 128 + N if signal N ended it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_at_end_of_input, args=(process.pid,), daemon=True).start()
    # Not reaped yet, so that its process group still goes by its number.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    _signal_group(process.pid, signal.SIGKILL)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _end_at_end_of_input(group: int) -> None:
    while os.read(0, 4096):
        pass
    _signal_group(group, signal.SIGTERM)
    time.sleep(GRACE)
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass  # all of them have ended; some systems say so by PermissionError


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
