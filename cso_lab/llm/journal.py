"""The journal of LLM calls: every reply is saved before it is used, so that a restarted run does not pay for it again."""

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.llm.budget import Usage

FILE = "calls.jsonl"
NO_DIALOGUE = ""
"""The dialogue of calls that belong to none. Their answers are always needed."""


class Journal:
    """An append-only JSON Lines file with one line per call. Use it in a `with`, which locks it for one process at a time.

    A line holds key, dialogue, role, model, seed and attempt; the reply's text, tokens and cost if there was a reply; and `fault` if
    the call failed or its reply did not parse. Each line is written with one system call, so a killed process can leave at most one
    incomplete line, which is cut off when the journal is opened again. (A power failure can lose the last few seconds.)

    `answers`: usable replies by question key. `parse_failures`: number of replies that did not parse, by question key. `answered`:
    number of usable replies by dialogue. These three cover the needed dialogues only; `usage` covers all lines.
    """

    def __init__(self, folder: Path, dialogues: Collection[str]):
        """`dialogues`: ids of the dialogues whose answers are still needed."""
        self.path = Path(folder) / FILE
        self.answers: dict[str, str] = {}
        self.parse_failures: Counter[str] = Counter()
        self.usage = Usage()
        self.answered: Counter[str] = Counter()
        self._needed = frozenset(dialogues) | {NO_DIALOGUE}
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
        """Removes and returns the saved reply to a question; None if there is none.

        It is removed to free memory: the caller keeps the parsed answer.
        """
        return self.answers.pop(key, None)

    def write(self, call: Mapping) -> None:
        """Appends one call. Raises UserError if it cannot be written; every later call then raises the same error, so that the file
        holds complete lines only."""
        if self._failure:
            raise self._failure
        line = json.dumps(call, ensure_ascii=False).encode() + b"\n"
        try:
            written = os.write(self._file, line)
            if written < len(line):
                os.write(self._file, line[written:])  # raises the OSError that names the cause
        except OSError as error:
            self._failure = UserError(f"cannot write {self.path}: {error.strerror}; the same command goes on from here")
            with suppress(OSError):  # an incomplete line is cut off when the journal is opened again, too
                os.ftruncate(self._file, self._size)
            raise self._failure from None
        self._size += len(line)
        if "fault" not in call:
            self.answered[call["dialogue"]] += 1

    def read(self) -> int:
        """Reads all complete lines and returns their total length in bytes. Raises UserError if one of them is damaged.

        Opening the journal does this; call it directly to read without locking or writing.
        """
        end = 0
        if not self.path.exists():
            return end
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._index(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError):
                    raise UserError(f"{self.path}:{number} is damaged: delete the line, and its call is asked again") from None
                end += len(line)
        return end

    def _index(self, call: Mapping) -> None:
        self.usage.add(call)
        if call["dialogue"] not in self._needed:
            return
        if "fault" not in call:
            self.answers[call["key"]] = call["reply"]
            self.answered[call["dialogue"]] += 1
        elif "reply" in call:
            self.parse_failures[call["key"]] += 1
