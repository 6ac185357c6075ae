"""The rewards of an algorithm as the functions that TRL's GRPO trainer calls."""

from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cso_lab.core.errors import UserError
from cso_lab.core.strategies import StrategySet
from cso_lab.training.rewards.judge import RoleJudge
from cso_lab.training.rewards.rollout import Judge, Reward, rollout


def used_rewards(algorithm: DictConfig) -> dict[str, float]:
    """Returns {name of a reward: its weight} for those of `algorithm.rewards` that count.

    Raises UserError if a reward has no weight, a weight no reward, or if none counts.
    """
    rewards, weights = algorithm.rewards, algorithm.weights
    if missing := rewards.keys() - weights.keys():
        name = sorted(missing)[0]
        raise UserError(f"algorithm.rewards.{name} has no weight: give algorithm.weights.{name}=NUMBER")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise UserError(f"algorithm.weights.{name}={weight}: should be a number")
        if weight and name not in rewards:
            raise UserError(
                f"algorithm.weights.{name} is of no reward: give algorithm.rewards.{name}, or one of {', '.join(rewards)}"
            )
    used = {name: float(weights[name]) for name in rewards if weights[name]}
    if not used:
        raise UserError(f"algo={algorithm.name} has no reward: give algorithm.weights.NAME=1 for one of {', '.join(rewards)}")
    return used


def reward_functions(cfg: DictConfig, rows: Sequence[dict], strategies: StrategySet, folder: Path) -> list[Callable]:
    """Returns a function for each reward that counts, with the reward's name, in the order of `used_rewards`.

    `rows` are lines of prompts.jsonl; the functions are given the index of each reply's row. The judge's journal goes to `folder`.
    """
    from hydra.utils import instantiate

    roles = OmegaConf.to_container(cfg.roles, resolve=True)
    judge = RoleJudge(roles, strategies, cfg.training.seed, folder, cfg.hardware.processes)
    used = used_rewards(cfg.algorithm)
    return [_function(name, instantiate(cfg.algorithm.rewards[name]), judge, rows, strategies) for name in used]


def _function(name: str, reward: Reward, judge: Judge, rows: Sequence[dict], strategies: StrategySet) -> Callable:
    def function(completions: Sequence[str], row: Sequence[int], **_) -> list[float | None]:
        replies = [rollout(rows[index], reply, strategies) for index, reply in zip(row, completions, strict=True)]
        return reward(replies, judge)

    function.__name__ = name  # under which TRL logs it
    return function
