"""Whether the model hub can be reached: libraries that ask it try for minutes where it cannot."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

# Seconds that the hub may take to answer, the look-up of its name included.
_PATIENCE = 4


@contextmanager
def offline_unless_reachable(path: str | None) -> Iterator[None]:
    """Within it, the hub's cache on this machine is used alone, as with HF_HUB_OFFLINE=1, if the hub does not answer within seconds.

    Nothing is asked where `backbone.path` is a folder or null, which need no hub.
    """
    from huggingface_hub import constants

    if path is None or Path(path).is_dir() or constants.is_offline_mode() or _answers(constants.ENDPOINT):
        yield
        return
    print(f"the hub {constants.ENDPOINT} cannot be reached: only its cache on this machine is used", file=sys.stderr)
    with patch.object(constants, "HF_HUB_OFFLINE", True):
        yield


def _answers(address: str) -> bool:
    import httpx

    answers: list[bool] = []

    def ask() -> None:
        try:
            httpx.head(address, timeout=_PATIENCE)
            answers.append(True)
        except httpx.HTTPError:
            pass

    # In a thread, since httpx's limit does not hold for the look-up of a name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return bool(answers)
