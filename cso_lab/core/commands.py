"""Helpers of the commands beside run.py, which report wrong arguments and unreadable files in one line."""

import argparse
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from cso_lab.core.errors import UserError, heed_debug, tracebacks_shown


class Parser(argparse.ArgumentParser):
    """An argument parser that raises a UserError instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError with the message."""
        raise UserError(f"{message} (see --help)")


def run(main: Callable[[], None]) -> NoReturn:
    """Runs a command and exits: with 0, with a UserError's exit code after printing it in one line, or with 130 on Ctrl-C."""
    heed_debug(sys.argv[1:])
    try:
        main()
    except UserError as error:
        if tracebacks_shown():
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
