"""Rewards: from the judge's scores of one supporter turn to a number (eq. 2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cso_lab.search.tree import Scores


class Reward(Protocol):
    """What a search needs of a reward."""

    def __call__(self, scores: Scores) -> float: ...

    @property
    def best(self) -> float:
        """The reward of a turn that scores 4 throughout, which a gold turn is taken to deserve."""

    @property
    def worst(self) -> float:
        """The reward of a turn that scores 0 throughout, which a leaf under way is taken to deserve (virtual loss)."""


@dataclass(frozen=True)
class LinearReward:
    """Eq. 2, R = (sum of weight x score) / divisor + bias. The paper: weights E 1, I 1, H 1, S 7, divisor 10, bias -3."""

    weights: Mapping[str, float]
    divisor: float
    bias: float

    def __call__(self, scores: Scores) -> float:
        return sum(weight * scores[name] for name, weight in self.weights.items()) / self.divisor + self.bias

    @property
    def best(self) -> float:
        return 4 * sum(self.weights.values()) / self.divisor + self.bias

    @property
    def worst(self) -> float:
        return self.bias


@dataclass(frozen=True)
class WeakestReward:
    """R = min(E, I, H, S) + bias: warmth cannot make up for a strategy that does not fit, nor the other way round."""

    bias: float

    def __call__(self, scores: Scores) -> float:
        return min(scores.values()) + self.bias

    @property
    def best(self) -> float:
        return 4 + self.bias

    @property
    def worst(self) -> float:
        return self.bias
