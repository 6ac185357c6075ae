"""One node's torchrun: `python -m cso_lab.training.agent TORCHRUN_ARGUMENTS... FOLDER`. Its failure is a file there, no traceback."""

import os
import signal
import sys
import threading
from pathlib import Path


def end_with_parent() -> None:
    """End this process and what it started as soon as its standard input is closed: the run that started it is gone, or wants it gone.

    A pipe tells so however the run ended, also by kill -9. Nobody ever writes to it.
    """

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    end_with_parent()
    os.environ["LOGLEVEL"] = "CRITICAL"  # torchrun reports a failed process in some forty lines; one is said of it elsewhere
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    from cso_lab.training.launch import Failure

    try:
        torchrun(sys.argv[1:])
    except ChildFailedError as error:
        # Who was killed first says more than those who lost it: they fail as well, or are ended with SIGTERM.
        ended = {rank: -failure.exitcode for rank, failure in error.failures.items() if failure.exitcode < 0}
        killed = {rank: number for rank, number in ended.items() if number != signal.SIGTERM}
        rank, first = error.get_first_failure()
        reason = f"process {rank} left with exit code {first.exitcode}"
        for rank, number in killed.items():
            reason = f"process {rank} was ended by {signal.Signals(number).name}"
        Failure(reason, order=1 if killed else 3).leave(Path(sys.argv[-1]), f"agent-{os.getpid()}")
        sys.exit(1)


if __name__ == "__main__":
    main()
