"""The journal of a search's calls: what was paid for once is never asked again. Also its checkpoint."""

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.llm.budget import Usage

FILE = "calls.jsonl"


class Journal:
    """Append-only JSON Lines, one a call, written before anybody sees the reply. One process at a time; use it in a `with`.

    A line holds key, dialogue, role, model, seed and attempt, and where there was a reply its text, tokens and cost; what failed has
    its `fault`. Every line is one write to the file, so that a killed process loses no more than the last line's end, which is cut
    off when the journal is opened again. (Of a machine that loses power, the last seconds.)
    """

    def __init__(self, folder: Path, dialogues: Collection[str]):
        """`dialogues`: ids of those whose answers are still needed."""
        self.path = Path(folder) / FILE
        self.answers: dict[str, str] = {}  # replies by key
        self.garbled: Counter[str] = Counter()  # replies that did not parse, by key
        self.usage = Usage()
        self.kept: Counter[str] = Counter()  # answers of `dialogues`, by dialogue; also those written since
        self._needed = frozenset(dialogues)
        self._failure: UserError | None = None

    def __enter__(self) -> "Journal":
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{self.path}.lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(f"another process is writing {self.path}: wait for it, or end it") from None
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._size = self.read()
            os.ftruncate(self._file, self._size)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_) -> None:
        os.close(self._file)
        self._lock.release()

    def pop_cached(self, key: str) -> str | None:
        """The reply to a question; it is taken once, whoever asks keeps what it says."""
        return self.answers.pop(key, None)

    def write(self, call: Mapping) -> None:
        """Append one call. A UserError when the disk does not take it; from then on nothing is written, and the file stays whole."""
        if self._failure:
            raise self._failure
        line = json.dumps(call, ensure_ascii=False).encode() + b"\n"
        try:
            written = os.write(self._file, line)
            if written < len(line):
                os.write(self._file, line[written:])  # says what the matter is
        except OSError as error:
            self._failure = UserError(f"cannot write {self.path}: {error.strerror}; the same command goes on from here")
            with suppress(OSError):  # what stays of the line is cut off when the journal is opened again
                os.ftruncate(self._file, self._size)
            raise self._failure from None
        self._size += len(line)
        if "fault" not in call:
            self.kept[call["dialogue"]] += 1

    def read(self) -> int:
        """Take in all whole lines; returns the length of the file up to the last one's end. Part of opening, and enough to look."""
        end = 0
        if not self.path.exists():
            return end
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._take_in(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError):
                    raise UserError(f"{self.path}:{number} is damaged: delete the line, and its call is asked again") from None
                end += len(line)
        return end

    def _take_in(self, call: Mapping) -> None:
        self.usage.add(call)
        if call["dialogue"] not in self._needed:
            return
        if "fault" not in call:
            self.answers[call["key"]] = call["reply"]
            self.kept[call["dialogue"]] += 1
        elif "reply" in call:
            self.garbled[call["key"]] += 1
