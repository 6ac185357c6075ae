"""Entry point of one node: `python -m cso_lab.training.agent TORCHRUN_ARGUMENTS... FOLDER` runs torchrun, the workers' elastic agent.

A failure is written to FOLDER as a file (see `processes.Failure`) instead of being printed as a traceback.
"""

import os
import signal
import sys
from pathlib import Path

from cso_lab.training.processes import Failure, end_with_parent


def main() -> None:
    """Runs torchrun until all workers of this node have ended; exits with 1 if one of them failed."""
    end_with_parent()
    os.environ["LOGLEVEL"] = "CRITICAL"  # torchrun reports a failed process in some forty lines; `Failure` is one
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(sys.argv[1:])
    except ChildFailedError as error:
        # torchrun ends the other workers with SIGTERM once one has failed: a worker killed by another signal was the first to go.
        signals = {rank: -failure.exitcode for rank, failure in error.failures.items() if failure.exitcode < 0}
        killed = {rank: number for rank, number in signals.items() if number != signal.SIGTERM}
        rank, first = error.get_first_failure()
        reason = f"process {rank} left with exit code {first.exitcode}"
        for rank, number in killed.items():
            reason = f"process {rank} was ended by {signal.Signals(number).name}"
        Failure(reason, order=1 if killed else 3).write(Path(sys.argv[-1]), f"agent-{os.getpid()}")
        sys.exit(1)


if __name__ == "__main__":
    main()
