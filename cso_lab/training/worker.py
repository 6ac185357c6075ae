"""One of several processes that train together: `python -m cso_lab.training.worker FOLDER`, started by torchrun.

FOLDER is a shared one, where `launch` has left the job and waits for the result.
"""

import os
import sys
import traceback
from pathlib import Path

from cso_lab.config.error_messages import explain, said
from cso_lab.core.errors import tracebacks_shown
from cso_lab.core.files import write_json
from cso_lab.training.agent import end_with_parent
from cso_lab.training.launch import RESULT, Failure, read_job


def main() -> None:
    end_with_parent()
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    if rank != 0:  # what the first shows is true of all
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
        if known := explain(error):
            Failure(str(known), order=0).leave(folder, str(rank))
            sys.exit(known.exit_code)
        Failure(f"process {rank}: {said(error)}", order=2).leave(folder, str(rank))
        sys.exit(1)


if __name__ == "__main__":
    main()
