"""Runs the jobs of a contender in a process of its own, with a line of progress at least every 20 seconds."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.benchmarks.contender import OUT_OF_MEMORY, Job

# Seconds between lines of progress, and between looks at what the process has written.
_HEARTBEAT, _POLL = 15, 0.2
TIME_IS_UP = "time is up"


def run_apart(jobs: Sequence[Job], title: str, deadline: float, say: Callable[[str], None]) -> list[dict]:
    """What each job found, or {"failed": why}. A process that breaks off is started again with the jobs after the one that broke it.

    `deadline` is a time of `time.monotonic`; jobs that it leaves no time for have failed. `say` gets the lines of progress.
    """
    outcomes: list[dict] = []
    while len(outcomes) < len(jobs):
        if time.monotonic() > deadline:
            return outcomes + [{"failed": TIME_IS_UP}] * (len(jobs) - len(outcomes))
        outcomes += _run(jobs[len(outcomes) :], title, deadline, say)
    return outcomes


def _run(jobs: Sequence[Job], title: str, deadline: float, say: Callable[[str], None]) -> list[dict]:
    """The outcomes of the first jobs: of all, or up to the one that ended the process."""
    with TemporaryDirectory() as folder:
        work, results, log = (Path(folder) / name for name in ("jobs.json", "results.jsonl", "log"))
        work.write_text(json.dumps([asdict(job) for job in jobs]), encoding="utf-8")
        results.touch()
        command = [sys.executable, "-m", "experiments.benchmarks.contender", str(work), str(results)]
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            _watch(process, jobs, results, title, deadline, say)
            in_time = process.poll() is not None
        finally:
            process.kill()
            process.wait()
        outcomes = _outcomes(results)
        if len(outcomes) < len(jobs):
            outcomes.append({"failed": _reason(process.returncode, log) if in_time else TIME_IS_UP})
            say(f"{title}, {jobs[len(outcomes) - 1].algo}: {outcomes[-1]['failed']}")
        return outcomes


def _watch(process, jobs: Sequence[Job], results: Path, title: str, deadline: float, say: Callable[[str], None]) -> None:
    """Waits for the process to end or the deadline to pass."""
    said, last = "", 0.0
    while process.poll() is None and time.monotonic() < deadline:
        done = len(_outcomes(results))
        text = f"{title}: {jobs[min(done, len(jobs) - 1)].algo} ({done} of {len(jobs)} done)"
        if text != said or time.monotonic() - last > _HEARTBEAT:
            say(text)
            said, last = text, time.monotonic()
        time.sleep(_POLL)


def _outcomes(results: Path) -> list[dict]:
    """What the process has written, of each job it has ended; its last line may be incomplete."""
    lines = results.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _reason(returncode: int, log: Path) -> str:
    if returncode == -signal.SIGKILL:
        return OUT_OF_MEMORY  # by the system, which says nothing else
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"exit {returncode}: {lines[-1] if lines else 'no message'}"
