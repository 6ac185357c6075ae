"""Rewards: functions from the judge's scores of one supporter turn to a number (eq. 2)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cso_lab.core.errors import UserError, unknown
from cso_lab.core.records import Scores

CRITERIA = ("E", "I", "H", "S")


class Reward(Protocol):
    """The interface of a reward, as the search uses it."""

    def __call__(self, scores: Scores) -> float:
        """Returns the reward of a turn with these scores."""

    @property
    def best(self) -> float:
        """The reward of a turn with all scores 4, which is the Q of gold nodes."""

    @property
    def worst(self) -> float:
        """The reward of a turn with all scores 0, which is the virtual loss of a leaf in a batch."""


@dataclass(frozen=True)
class LinearReward:
    """Eq. 2: R = (sum of weight x score) / divisor + bias. In the paper: weights E 1, I 1, H 1, S 7, divisor 10, bias -3.

    Raises UserError if a criterion is unknown, a weight is negative, the divisor is not positive, or a value is no number.
    """

    weights: Mapping[str, float]
    divisor: float
    bias: float

    def __post_init__(self):
        for criterion, weight in self.weights.items():
            if criterion not in CRITERIA:
                raise unknown("criterion of mcts.reward.weights", criterion, CRITERIA)
            _check_number(f"weights.{criterion}", weight)
            if weight < 0:
                raise UserError(f"mcts.reward.weights.{criterion}={weight}: should be 0 or more")
        _check_number("divisor", self.divisor)
        _check_number("bias", self.bias)
        if self.divisor <= 0:
            raise UserError(f"mcts.reward.divisor={self.divisor}: should be above 0")

    def __call__(self, scores: Scores) -> float:
        return sum(weight * scores[name] for name, weight in self.weights.items()) / self.divisor + self.bias

    @property
    def best(self) -> float:
        """See `Reward.best`."""
        return 4 * sum(self.weights.values()) / self.divisor + self.bias

    @property
    def worst(self) -> float:
        """See `Reward.worst`."""
        return self.bias


@dataclass(frozen=True)
class WeakestReward:
    """R = min(E, I, H, S) + bias: empathy cannot compensate for an unsuitable strategy, nor the reverse.

    Raises UserError if `bias` is no number.
    """

    bias: float

    def __post_init__(self):
        _check_number("bias", self.bias)

    def __call__(self, scores: Scores) -> float:
        return min(scores.values()) + self.bias

    @property
    def best(self) -> float:
        """See `Reward.best`."""
        return 4 + self.bias

    @property
    def worst(self) -> float:
        """See `Reward.worst`."""
        return self.bias


def _check_number(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"mcts.reward.{key}={value}: should be a number")
