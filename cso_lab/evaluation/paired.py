"""Compares two models on the same test turns by a paired bootstrap over turns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cso_lab.evaluation.metrics import batched_f1, preference, preference_bias
from cso_lab.evaluation.score import INTERVAL, RESAMPLES


@dataclass(frozen=True)
class Turns:
    """The results of one run at each of n test turns.

    `keys`: n pairs (dialogue, turn). `gold`, `predicted`: shape (n,), indices of the set's strategies; `strategies` is their number, and
    the index of an unparsed reply. `rouge`: shape (n,), R-L in percent. `counted`: shape (n,), whether the turn counts for Q, B and Q_W
    (evaluation.testset); all turns count for R-L.
    """

    keys: tuple[tuple[str, int], ...]
    gold: np.ndarray
    predicted: np.ndarray
    rouge: np.ndarray
    counted: np.ndarray
    strategies: int

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence], strategies: int) -> "Turns":
        """Returns the turns in `per_turn` of a metrics.json (see `score.turn_columns`)."""
        return cls(
            tuple((str(dialogue), int(turn)) for dialogue, turn in zip(columns["dialogue"], columns["turn"], strict=True)),
            np.array([int(gold) for gold in columns["gold"]]),
            np.array([strategies if predicted is None else int(predicted) for predicted in columns["predicted"]]),
            np.array([float(score) for score in columns["R-L"]]),
            np.array([bool(counted) for counted in columns.get("counted", [True] * len(columns["turn"]))]),
            strategies,
        )

    def at(self, keys: Sequence[tuple[str, int]]) -> "Turns":
        """Returns the results at the turns `keys` only, in their order."""
        index = {key: i for i, key in enumerate(self.keys)}
        chosen = [index[key] for key in keys]
        columns = (column[chosen] for column in (self.gold, self.predicted, self.rouge, self.counted))
        return Turns(tuple(keys), *columns, self.strategies)


@dataclass(frozen=True)
class Difference:
    """Our value minus theirs in one metric, and its 95% interval from `low` to `high`."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


class PairedBootstrap:
    """Compares models, each given by its runs with one or several seeds; the resampled scores of a run are cached."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self._scores: dict[tuple, tuple[Turns, dict[str, np.ndarray]]] = {}

    def differences(self, ours: Sequence[Turns], theirs: Sequence[Turns]) -> tuple[dict[str, Difference], int]:
        """Returns ({metric: Difference}, number of turns).

        The turns are those, by (dialogue, turn), that all runs have. A resample draws as many turns as there are, with replacement, the
        same for all runs; its value is the mean over the runs of one model minus that over the other's. The interval has the middle 95% of
        these values. Returns ({}, 0) if the runs have no turn in common, or different strategies, gold labels or counted turns.
        """
        runs = [*ours, *theirs]
        common = set.intersection(*(set(run.keys) for run in runs))
        keys = tuple(key for key in runs[0].keys if key in common)
        if not keys or not _alike([run.at(keys) for run in runs]):
            return {}, 0
        left, right = self._mean(ours, keys), self._mean(theirs, keys)
        values = {metric: left[metric] - right[metric] for metric in left}
        intervals = {metric: np.percentile(value[1:], INTERVAL).tolist() for metric, value in values.items()}
        return {metric: Difference(float(value[0]), *intervals[metric]) for metric, value in values.items()}, len(keys)

    def _mean(self, runs: Sequence[Turns], keys: tuple) -> dict[str, np.ndarray]:
        """Returns {metric: shape (1 + RESAMPLES,)}: the mean over runs, first on the original turns, then on each resample."""
        scores = [self._resampled(run, keys) for run in runs]
        return {metric: np.mean([score[metric] for score in scores], axis=0) for metric in scores[0]}

    def _resampled(self, run: Turns, keys: tuple) -> dict[str, np.ndarray]:
        if (id(run), keys) not in self._scores:
            n = len(keys)
            counts = np.random.default_rng(self.seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
            weights = np.concatenate([np.ones((1, n)), counts])
            # The run is stored too: if it were freed, another object could have the same id.
            self._scores[id(run), keys] = run, weighted_scores(run.at(keys), weights)
        return self._scores[id(run), keys][1]


def weighted_scores(run: Turns, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns {metric: shape (R,)}: the scores of a run in which turn i counts `weights`[r, i] times; `weights` has shape (R, n)."""
    size = run.strategies
    cells = np.zeros((len(run.keys), size * (size + 1)))
    cells[np.arange(len(run.keys)), run.gold * (size + 1) + run.predicted] = run.counted
    tables = (weights @ cells).reshape(-1, size, size + 1)
    q, q_w = batched_f1(tables)
    bias = preference_bias(preference(tables[..., :-1]))
    return {"Q": q, "B": bias, "Q_W": q_w, "R-L": weights @ run.rouge / weights.sum(-1)}


def _alike(runs: Sequence[Turns]) -> bool:
    """Returns whether runs at the same turns have the same strategies, gold labels and counted turns."""
    return len({(run.strategies, run.gold.tobytes(), run.counted.tobytes()) for run in runs}) == 1
