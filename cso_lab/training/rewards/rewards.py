"""The built-in rewards. Each is a class that conf/algo/grpo.yaml names, with a weight there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cso_lab.search.reward import Reward as SearchReward

if TYPE_CHECKING:
    from cso_lab.training.rewards.rollout import Judge, Rollout


@dataclass(frozen=True)
class PreferredStrategy:
    """1 if the reply's strategy is that of a preferred turn in this state, else 0."""

    def __call__(self, rollouts: "Sequence[Rollout]", judge: "Judge") -> list[float | None]:
        return [float(reply.strategy in reply.preferred) for reply in rollouts]


@dataclass(frozen=True)
class WellFormed:
    """1 if the reply begins with "(Strategy)", a known one, and has a text after it, else 0."""

    def __call__(self, rollouts: "Sequence[Rollout]", judge: "Judge") -> list[float | None]:
        return [float(reply.strategy is not None and bool(reply.text)) for reply in rollouts]


@dataclass(frozen=True)
class JudgeScore:
    """The search's reward of the judge's scores (eq. 2); the worst one, unasked, for a reply without a text."""

    reward: SearchReward

    def __call__(self, rollouts: "Sequence[Rollout]", judge: "Judge") -> list[float | None]:
        scores = iter(judge([reply for reply in rollouts if reply.text]))
        return [self._of(next(scores)) if reply.text else self.reward.worst for reply in rollouts]

    def _of(self, scores) -> float | None:
        return None if scores is None else self.reward(scores)


@dataclass(frozen=True)
class TreeValue:
    """Q of the child with the reply's strategy, where the tree has scored one in this state; else none."""

    def __call__(self, rollouts: "Sequence[Rollout]", judge: "Judge") -> list[float | None]:
        return [reply.values.get(reply.strategy) for reply in rollouts]
