"""The search that a configuration describes, for any client: the search stage runs it, and the estimate runs it with simulated players."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cso_lab.core.records import Dialogue
from cso_lab.core.strategies import StrategySet
from cso_lab.roles.prompts import PLACEHOLDERS
from cso_lab.search.roles import Roles
from cso_lab.search.rollout import Simulator
from cso_lab.search.tree import Tree

if TYPE_CHECKING:
    from cso_lab.llm.client import Client
    from cso_lab.roles.role_players import RolePlayers


@dataclass(frozen=True, kw_only=True)
class ConfiguredSearch:
    """`mcts` and `roles` are the config nodes; `theta` and `min_end_visits` define which turns are preferred (section 3.2)."""

    mcts: Mapping
    roles: Mapping
    strategies: StrategySet
    theta: float
    min_end_visits: int

    def role_players(self, client: "Client") -> "RolePlayers":
        """Returns the configured role players over `client`."""
        from cso_lab.roles.role_players import RolePlayers

        return RolePlayers(self.roles, client, self.strategies, self.mcts["seed"])

    def searcher(self, role_players: Roles) -> Simulator:
        """Returns the search of `mcts.search`, such as an MCTS. Use one for all dialogues, which then share its low-priority queue."""
        from hydra.utils import instantiate

        reward = instantiate(self.mcts["reward"])
        return instantiate(self.mcts["search"], _partial_=True)(roles=role_players, reward=reward, strategies=self.strategies)

    async def expand_dialogue(self, searcher: Simulator, dialogue: Dialogue, on_iteration: Callable[[int], None]) -> Tree:
        """Returns the tree of one dialogue, after the extension pass if `mcts.extend_negatives`.

        `on_iteration` is called with the number of each finished iteration, from 1.
        """
        tree = await searcher.search(dialogue, lambda tree, iteration: on_iteration(iteration))
        if self.mcts["extend_negatives"]:
            await searcher.extend(dialogue, tree, self.theta, self.min_end_visits)
        return tree

    @property
    def uses_language_models(self) -> bool:
        """Whether any role is played by something other than a simulated player."""
        return any(not model.startswith("simulated/") for model in self.models.values())

    @property
    def models(self) -> dict[str, str]:
        """The name of each role's model."""
        return {role: self.roles[role]["model"] for role in PLACEHOLDERS}
