"""What a running search shows: one table that is drawn again and again, and its last state where there is no terminal."""

import time
from collections.abc import Callable, Collection

# Seconds between two looks of whoever watches.
_WATCHED_EVERY = 5.0


class Live:
    """Dialogues, iterations, calls by role, tokens, dollars and the time left. Use it in a `with`."""

    def __init__(self, dialogues: int, done: int, expected, client, watch: Callable[[dict[str, float]], None] | None = None):
        """`expected`: the Estimate of what is left; `client` counts; `watch` is told `numbers` now and then, and at the end."""
        self._dialogues, self._done, self._aside = dialogues, done, 0
        self._expected, self._client = expected, client
        self._iterations: dict[str, int] = {}
        self._began = time.monotonic()
        self._calls_before = client.usage.calls.total()
        self._watch, self._watched = watch, self._began

    def __enter__(self) -> "Live":
        from rich.live import Live as Display

        self._display = Display(get_renderable=self._table, refresh_per_second=2)
        self._display.start()
        return self

    def __exit__(self, *_) -> None:
        self._display.stop()
        self._tell()

    @property
    def iterations(self) -> int:
        """Finished in this run."""
        return sum(self._iterations.values())

    def iteration(self, dialogue: str, number: int) -> None:
        """A dialogue has finished its `number`-th iteration."""
        self._iterations[dialogue] = number
        if time.monotonic() - self._watched > _WATCHED_EVERY:
            self._tell()

    def finished(self, dialogue: str, set_aside: Collection[str]) -> None:
        """A dialogue is done with, one way or the other."""
        self._done += dialogue not in set_aside
        self._aside = len(set_aside)

    def numbers(self) -> dict[str, float]:
        """What is shown, as numbers: seconds of this run, calls in all and by role ("calls/judge")."""
        usage = self._client.usage
        return {
            "seconds": round(time.monotonic() - self._began, 1),
            "dialogues_done": self._done,
            "dialogues_set_aside": self._aside,
            "iterations": self.iterations,
            "calls": usage.calls.total(),
            **{f"calls/{role}": number for role, number in sorted(usage.calls.items())},
            "calls_in_flight": self._client.in_flight,
            "failed_attempts": usage.failed_attempts,
            "tokens": usage.prompt_tokens + usage.completion_tokens,
            "dollars": usage.cost,
            "unpriced_calls": usage.unpriced,
        }

    def _tell(self) -> None:
        self._watched = time.monotonic()
        if self._watch is not None:
            self._watch(self.numbers())

    def rows(self) -> list[tuple[str, str]]:
        """What is shown, as (name, value)."""
        usage = self._client.usage
        aside = f", {self._aside} set aside" if self._aside else ""
        roles = ", ".join(f"{role} {number:,}" for role, number in sorted(usage.calls.items()))
        failed = f"; {usage.failed_attempts:,} failed" if usage.failed_attempts else ""
        unknown = f" and {usage.unpriced:,} calls without a known price" if usage.unpriced else ""
        return [
            ("dialogues", f"{self._done} of {self._dialogues}{aside}"),
            ("iterations", f"{self.iterations:,} of about {self._expected.iterations:,.0f}"),
            ("calls", f"{usage.calls.total():,} ({roles}{failed}), {self._client.in_flight} in flight"),
            ("tokens", f"{usage.prompt_tokens:,} + {usage.completion_tokens:,}"),
            ("cost", f"${usage.cost:,.4f}{unknown}"),
            ("time", f"{_clock(time.monotonic() - self._began)}, left: {self._left()}"),
        ]

    def _left(self) -> str:
        """From how fast calls have been made in this run."""
        made = self._client.usage.calls.total() - self._calls_before
        if not made:
            return "?"
        seconds = (time.monotonic() - self._began) / made * max(0.0, self._expected.calls.total() - made)
        return "about " + _clock(seconds)

    def _table(self):
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for name, value in self.rows():
            table.add_row(f"search {name}", value)
        return table


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
