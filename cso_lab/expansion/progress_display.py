"""The progress display of a running search: a table that is redrawn in place, or printed once at the end without a terminal."""

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from cso_lab.expansion.estimate import Estimate
    from cso_lab.llm.client import Client

_LOG_INTERVAL = 5.0  # seconds


class ProgressDisplay:
    """Shows dialogues, iterations, calls by role, tokens, dollars and the time left. Use it in a `with`."""

    def __init__(
        self,
        dialogues: int,
        done: int,
        expected: "Estimate",
        client: "Client",
        log_metrics: Callable[[dict[str, float]], None] | None = None,
    ):
        """`dialogues`: how many there are, `done` of which were finished before. `expected`: what this run will use; `client` has the
        counts so far. `log_metrics` is called with `metrics()` every few seconds and at the end.
        """
        self._dialogues, self._done, self._set_aside = dialogues, done, 0
        self._expected, self._client = expected, client
        self._iterations: dict[str, int] = {}
        self._start = time.monotonic()
        self._calls_before = client.usage.calls.total()
        self._log_metrics, self._last_log = log_metrics, self._start

    def __enter__(self) -> "ProgressDisplay":
        from rich.live import Live

        self._display = Live(get_renderable=self._table, refresh_per_second=2)
        self._display.start()
        return self

    def __exit__(self, *_) -> None:
        self._display.stop()
        self._log()

    @property
    def iterations(self) -> int:
        """The number of iterations finished in this run."""
        return sum(self._iterations.values())

    def iteration(self, dialogue: str, number: int) -> None:
        """Records that `dialogue` (id) has finished its `number`-th iteration."""
        self._iterations[dialogue] = number
        if time.monotonic() - self._last_log > _LOG_INTERVAL:
            self._log()

    def finished(self, dialogue: str, set_aside: Collection[str]) -> None:
        """Records that `dialogue` (id) has a tree or is among those `set_aside`."""
        self._done += dialogue not in set_aside
        self._set_aside = len(set_aside)

    def metrics(self) -> dict[str, float]:
        """Returns what is shown as numbers by name: seconds of this run, calls in total and by role ("calls/judge"), and so on."""
        usage = self._client.usage
        return {
            "seconds": round(time.monotonic() - self._start, 1),
            "dialogues_done": self._done,
            "dialogues_set_aside": self._set_aside,
            "iterations": self.iterations,
            "calls": usage.calls.total(),
            **{f"calls/{role}": number for role, number in sorted(usage.calls.items())},
            "calls_in_flight": self._client.in_flight,
            "failed_attempts": usage.failed_attempts,
            "tokens": usage.prompt_tokens + usage.completion_tokens,
            "dollars": usage.cost,
            "unpriced_calls": usage.unpriced,
        }

    def _log(self) -> None:
        self._last_log = time.monotonic()
        if self._log_metrics is not None:
            self._log_metrics(self.metrics())

    def rows(self) -> list[tuple[str, str]]:
        """Returns the rows of the table as (name, value)."""
        usage = self._client.usage
        set_aside = f", {self._set_aside} set aside" if self._set_aside else ""
        roles = ", ".join(f"{role} {number:,}" for role, number in sorted(usage.calls.items()))
        failed = f"; {usage.failed_attempts:,} failed" if usage.failed_attempts else ""
        unknown = f" and {usage.unpriced:,} calls without a known price" if usage.unpriced else ""
        return [
            ("dialogues", f"{self._done} of {self._dialogues}{set_aside}"),
            ("iterations", f"{self.iterations:,} of about {self._expected.iterations:,.0f}"),
            ("calls", f"{usage.calls.total():,} ({roles}{failed}), {self._client.in_flight} in flight"),
            ("tokens", f"{usage.prompt_tokens:,} + {usage.completion_tokens:,}"),
            ("cost", f"${usage.cost:,.4f}{unknown}"),
            ("time", f"{_clock(time.monotonic() - self._start)}, left: {self._time_left()}"),
        ]

    def _time_left(self) -> str:
        """Returns the time left, extrapolated from the rate of calls in this run."""
        calls = self._client.usage.calls.total() - self._calls_before
        if not calls:
            return "?"
        seconds = (time.monotonic() - self._start) / calls * max(0.0, self._expected.calls.total() - calls)
        return "about " + _clock(seconds)

    def _table(self) -> "Table":
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for name, value in self.rows():
            table.add_row(f"search {name}", value)
        return table


def _clock(seconds: float) -> str:
    """Returns a duration as H:MM:SS."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
