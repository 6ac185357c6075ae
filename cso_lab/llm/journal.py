"""The journal of LLM calls: every reply is saved before it is used, so that a restarted run does not pay for it again."""

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.llm.budget import Usage
from cso_lab.llm.reasoning import ReplyText

FILE = "calls.jsonl"
NO_DIALOGUE = ""
"""The dialogue of calls that belong to none. Their answers are always needed."""


class Journal:
    """An append-only JSON Lines file with one line per call. Use it in a `with`, which locks it for one process at a time.

    A line holds key, dialogue, role, model, seed and attempt; the reply as the model wrote it, tokens and cost if there was a reply; and
    `fault` if the call failed or its reply did not parse. `cut` marks a reply that ended at the limit of tokens; if that was used up to its
    last whole sentence, `trimmed`, and if the question was then asked with more room, `more_room`.

    Each line is written with one system call, so a killed process can leave at most one incomplete line, which is cut off when the journal
    is opened again. (A power failure can lose the last few seconds.)

    A line with `batch`, the name of a batch of calls, says what became of it: the keys of its questions in `pending` before it is
    submitted, the provider's `id` for it before anybody waits, and its last `status` with the `pending` questions that are still to be
    read from it.

    `answers`: usable replies by question key. `parse_failures`: number of replies that did not parse, by question key. `answered`:
    number of usable replies by dialogue. `dropped_turns`: by question key, how many turns an answered question was shortened by.
    `with_more_room`: keys of questions whose next reply gets more room. These cover the needed dialogues only; `usage` and `batches` (the
    lines of each batch, merged, by its name) cover all lines.
    """

    def __init__(self, folder: Path, dialogues: Collection[str]):
        """`dialogues`: ids of the dialogues whose answers are still needed."""
        self.path = Path(folder) / FILE
        self.answers: dict[str, str] = {}
        self.parse_failures: Counter[str] = Counter()
        self.with_more_room: set[str] = set()
        self.usage = Usage()
        self.answered: Counter[str] = Counter()
        self.batches: dict[str, dict] = {}
        self.dropped_turns: dict[str, int] = {}
        self._needed = frozenset(dialogues) | {NO_DIALOGUE}
        self._cut: set[str] = set()  # keys of `answers`
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

    def pop_cached(self, key: str) -> ReplyText | None:
        """Removes and returns the saved reply to a question; None if there is none.

        It is removed to free memory: the caller keeps the parsed answer.
        """
        reply = self.answers.pop(key, None)
        return None if reply is None else ReplyText(reply, key in self._cut)

    def keep(self, key: str, reply: str, cut: bool) -> None:
        """Adds the reply to a question, which is journaled, to `answers`."""
        self.answers[key] = reply
        if cut:
            self._cut.add(key)

    def write(self, call: Mapping) -> None:
        """Appends one call, or what became of a batch. Raises UserError if it cannot be written; every later call then raises the same
        error, so that the file holds complete lines only."""
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
        if "batch" in call:
            os.fsync(self._file)  # a batch is paid for as a whole, so that even a power failure must not lose it
            self._index(call)
        elif "fault" not in call:
            self._count(call)

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
        if "batch" in call:
            self.batches.setdefault(call["batch"], {"keys": call.get("pending", []), "pending": []}).update(call)
            return
        self.usage.add(call)
        if call["dialogue"] not in self._needed:
            return
        if "fault" not in call:
            self.answers[call["key"]] = call["reply"]
            self._count(call)
            if call.get("cut"):
                self._cut.add(call["key"])
            self.with_more_room.discard(call["key"])
        elif call.get("more_room"):
            self.with_more_room.add(call["key"])
        elif "reply" in call:
            self.parse_failures[call["key"]] += 1

    def _count(self, call: Mapping) -> None:
        """Counts a usable reply."""
        self.answered[call["dialogue"]] += 1
        if "dropped_turns" in call:
            self.dropped_turns[call["key"]] = call["dropped_turns"]
