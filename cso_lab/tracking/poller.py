"""A file looked at again and again while another writes it."""

import threading
from collections.abc import Callable

_SECONDS = 2.0


class Follow(threading.Thread):
    """Calls `look` every few seconds until it is stopped; what `look` raises, `stop` raises."""

    def __init__(self, look: Callable[[], None]):
        super().__init__(name="follow", daemon=True)
        self._look, self._over, self._trouble = look, threading.Event(), None

    def run(self) -> None:
        try:
            while not self._over.wait(_SECONDS):
                self._look()
        except Exception as trouble:
            self._trouble = trouble

    def stop(self) -> None:
        """Wait for a look under way, and look for the last time."""
        self._over.set()
        self.join()
        if self._trouble is not None:
            raise self._trouble
        self._look()
