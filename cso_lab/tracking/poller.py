"""Calls a function every few seconds, to follow a file that another process writes."""

import threading
from collections.abc import Callable

_SECONDS = 2.0


class Poller(threading.Thread):
    """Calls `poll` every few seconds until it is stopped; an exception of `poll` is raised by `stop`."""

    def __init__(self, poll: Callable[[], None]):
        super().__init__(name="poller", daemon=True)
        self._poll, self._stopped, self._error = poll, threading.Event(), None

    def run(self) -> None:
        """The thread itself; `start` runs it."""
        try:
            while not self._stopped.wait(_SECONDS):
                self._poll()
        except Exception as error:
            self._error = error

    def stop(self) -> None:
        """Waits for a running call to end, and calls `poll` once more; raises what it raised before."""
        self._stopped.set()
        self.join()
        if self._error is not None:
            raise self._error
        self._poll()
