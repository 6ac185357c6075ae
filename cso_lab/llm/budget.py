"""What a search, or a cell, has used, and the caps on it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from cso_lab.core.errors import UserError
from cso_lab.llm.config_location import ROLES, ConfigLocation
from cso_lab.llm.prices import priced

CAPS = ("calls", "tokens", "dollars")


class BudgetSpent(UserError):
    """A cap on calls, tokens or dollars is reached. The same command goes on once it is raised."""

    exit_code = 3


@dataclass
class Usage:
    """What was used so far, over all runs. `unpriced` counts calls to models whose price nobody knows; they are not free.
    `unmetered` counts replies that came without a count of tokens; theirs are estimated."""

    calls: Counter = field(default_factory=Counter)  # by role
    failed_attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0  # US dollars
    unpriced: int = 0
    unmetered: int = 0

    def add(self, call: Mapping) -> None:
        """Count one call as it stands in the journal."""
        self.calls[call["role"]] += 1
        self.failed_attempts += "fault" in call
        if "prompt_tokens" not in call:  # it brought no reply
            return
        self.prompt_tokens += call["prompt_tokens"]
        self.completion_tokens += call["completion_tokens"]
        self.unmetered += call.get("estimated", False)
        if call["cost"] is None:
            self.unpriced += 1
        else:
            self.cost += call["cost"]

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def to_json(self) -> dict:
        return vars(self) | {"calls": dict(self.calls)}


class Budget:
    """Caps on what may be used in all, over all runs; None: no cap.

    Calls under way when a cap is reached are finished and kept, so tokens and dollars can exceed it by those; calls never do.
    """

    def __init__(self, caps: Mapping | None = None, place: ConfigLocation = ROLES):
        self._place = place
        self._caps = dict.fromkeys(CAPS) | dict(caps or {})

    def check_models(self, models: Mapping[str, str]) -> None:
        """A UserError when dollars are capped and a role's model has no known price. `models`: by role."""
        for role, model in models.items():
            if self._caps["dollars"] is not None and not priced(model):
                budget = f"{self._place.node}.budget"
                raise UserError(
                    f"{budget}.dollars needs a known price, and nobody knows that of {model} ({self._place.model(role)}): "
                    f"cap {budget}.calls or {budget}.tokens instead"
                )

    def check(self, usage: Usage, in_flight: int) -> None:
        """Raise BudgetSpent unless one more call may be made. `in_flight`: calls made whose reply is not in `usage` yet."""
        used = {"calls": usage.calls.total() + in_flight, "tokens": usage.tokens, "dollars": usage.cost}
        for name, cap in self._caps.items():
            if cap is not None and used[name] >= cap:
                raise BudgetSpent(f"{self._place.node}.budget.{name}={cap:g} is spent")
