"""What a training's log warns of: the preferred replies becoming less likely, the known failure of DPO (Pal et al., 2024)."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_jsonl

LOG = "train_log.jsonl"
_CHOSEN, _REJECTED, _REWARD = "logps/chosen", "logps/rejected", "rewards/chosen"
# A reward below this at the first step is one relative to a reference model, from which a training starts.
_NO_REWARD = 0.05


def chosen_fell(log: Sequence[dict]) -> str | None:
    """Returns in words that the log-probability of the preferred replies fell over a training, with the numbers; None if it did not.

    The first quarter of the steps is compared with the last. With a reference model, what fell is the reward beta * (log pi - log pi_ref),
    which compares the same replies before and after; without one, the mean log-probability, which also depends on the batches' replies.
    """
    rewards, chosen, rejected = (_values(log, key) for key in (_REWARD, _CHOSEN, _REJECTED))
    if len(chosen) < 2 or len(rejected) != len(chosen):
        return None
    referenced = len(rewards) == len(chosen) and abs(rewards[0]) < _NO_REWARD
    before, after = _ends(rewards if referenced else chosen)
    if after >= before:
        return None
    ends = [f"{first:.1f} to {last:.1f}" for first, last in map(_ends, (chosen, rejected))]
    fell = "the log-probability of the preferred replies fell over the training"
    if referenced:
        return (
            f"{fell}: their reward, relative to the reference model, went from {before:+.3f} to {after:+.3f} "
            f"(log-probabilities, each of its own batch: preferred {ends[0]}, dispreferred {ends[1]})"
        )
    return f"{fell}, from {ends[0]}; that of the dispreferred went from {ends[1]}"


def training_warnings(runs: Iterable[tuple[str, Path]]) -> list[str]:
    """Returns what the logs of runs (name, folder) warn of, one sentence a run; a log that is missing or damaged warns of nothing."""
    sentences = []
    for name, folder in runs:
        try:
            log = read_jsonl(folder / LOG)
        except (OSError, UserError):
            continue
        for part, steps in _parts(log).items():
            if warning := chosen_fell(steps):
                sentences.append(f"{', '.join(filter(None, (name, part)))}: {warning}.")
    return sentences


def _parts(log: Sequence[dict]) -> dict[str | None, list[dict]]:
    """Returns the steps of each of the trainings of a log; a log of one training names no `part`."""
    parts: dict[str | None, list[dict]] = {}
    for entry in log:
        parts.setdefault(entry.get("part"), []).append(entry)
    return parts


def _values(log: Sequence[dict], key: str) -> list[float]:
    return [entry[key] for entry in log if isinstance(entry.get(key), int | float)]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Returns the means of the first and of the last quarter."""
    quarter = max(1, len(values) // 4)
    return statistics.fmean(values[:quarter]), statistics.fmean(values[-quarter:])
