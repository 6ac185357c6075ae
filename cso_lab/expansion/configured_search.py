"""A configured search, whoever plays in it: what the search stage runs and what its estimate rehearses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cso_lab.core.records import Dialogue
from cso_lab.core.strategies import StrategySet
from cso_lab.roles.prompts import PLACEHOLDERS
from cso_lab.search.tree import Tree


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`mcts` and `roles` as configured; `theta` and `min_end_visits` say which turns are preferred (section 3.2)."""

    mcts: Mapping
    roles: Mapping
    strategies: StrategySet
    theta: float
    min_end_visits: int

    def role_players(self, client):
        from cso_lab.roles.role_players import RolePlayers

        return RolePlayers(self.roles, client, self.strategies, self.mcts["seed"])

    def search(self, role_players):
        """The configured search with `role_players`; one for all dialogues, which share its idle slots."""
        from hydra.utils import instantiate

        reward = instantiate(self.mcts["reward"])
        return instantiate(self.mcts["search"], _partial_=True)(roles=role_players, reward=reward, strategies=self.strategies)

    async def grow(self, search, dialogue: Dialogue, on_iteration: Callable[[int], None]) -> Tree:
        """The tree of one dialogue, extended where the configuration says so."""
        tree = await search.search(dialogue, lambda tree, iteration: on_iteration(iteration))
        if self.mcts["extend_negatives"]:
            await search.extend(dialogue, tree, self.theta, self.min_end_visits)
        return tree

    @property
    def paid(self) -> bool:
        """Whether any player is more than a simulated one."""
        return any(not model.startswith("simulated/") for model in self.models.values())

    @property
    def models(self) -> dict[str, str]:
        """The model of each role."""
        return {role: self.roles[role]["model"] for role in PLACEHOLDERS}
