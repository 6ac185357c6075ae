"""Entry point of one of several processes that train together: `python -m cso_lab.training.worker FOLDER`, started by torchrun.

FOLDER holds the job that `processes.train_in_processes` wrote; the result or the failure is written there.
"""

import os
import sys
import traceback
from pathlib import Path

from cso_lab.config.error_messages import explain, type_and_message
from cso_lab.core.errors import tracebacks_shown
from cso_lab.core.files import write_json
from cso_lab.training.processes import RESULT, Failure, end_with_parent, read_job


def main() -> None:
    """Trains as one process of the job; rank 0 writes the summary. Exits with a UserError's code or 1 if the training failed."""
    end_with_parent()
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    if rank != 0:  # all ranks print the same, so only rank 0 prints to the terminal
        log = os.open(folder / f"process-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
    try:
        from cso_lab.training.train import train_here

        summary = train_here(*read_job(folder))
        if rank == 0:
            write_json(folder / RESULT, summary)
    except Exception as error:
        with (folder / f"process-{rank}.log").open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
        if tracebacks_shown():
            traceback.print_exc()
        if explanation := explain(error):
            Failure(str(explanation), order=0).write(folder, str(rank))
            sys.exit(explanation.exit_code)
        Failure(f"process {rank}: {type_and_message(error)}", order=2).write(folder, str(rank))
        sys.exit(1)


if __name__ == "__main__":
    main()
