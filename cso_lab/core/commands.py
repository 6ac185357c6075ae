"""What the commands beside run.py share: wrong arguments and unreadable files are one line, like any other user error."""

import argparse
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from cso_lab.core.errors import UserError, heed_debug, tracebacks_shown


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage block."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def run(main: Callable[[], None]) -> NoReturn:
    """Run a command and leave with its exit code."""
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
