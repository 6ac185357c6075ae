"""Counts of what requests have used, and caps on them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cso_lab.core.errors import UserError
from cso_lab.llm.config_location import ROLES, ConfigLocation
from cso_lab.llm.prices import batch_cost, has_known_price

CAPS = ("calls", "tokens", "dollars")


class BudgetSpent(UserError):
    """A cap on calls, tokens or dollars is reached. Once it is raised, the same command continues."""

    exit_code = 3


@dataclass
class Usage:
    """What has been used so far, over all runs that share a journal.

    `unpriced` counts calls to models whose price is unknown, which does not mean that they are free. `unmetered` counts replies without
    token counts; their tokens are estimated. `reasoning_tokens` are among the `completion_tokens`. `cut` counts replies that ended at the
    limit of tokens, `trimmed` those of them that were used up to their last whole sentence, both by role.
    """

    calls: Counter = field(default_factory=Counter)  # by role
    failed_attempts: int = 0
    unparsed: Counter = field(default_factory=Counter)  # replies that did not parse, by role; failed attempts, too
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0  # US dollars
    unpriced: int = 0
    unmetered: int = 0
    reasoning_tokens: int = 0
    cut: Counter = field(default_factory=Counter)
    trimmed: Counter = field(default_factory=Counter)

    def add(self, call: Mapping) -> None:
        """Adds one call, given as a line of the journal."""
        self.calls[call["role"]] += 1
        self.failed_attempts += "fault" in call
        if "fault" in call and "reply" in call:
            self.unparsed[call["role"]] += 1
        if "prompt_tokens" not in call:  # it failed without a reply
            return
        self.prompt_tokens += call["prompt_tokens"]
        self.completion_tokens += call["completion_tokens"]
        self.unmetered += call.get("estimated", False)
        self.reasoning_tokens += call.get("reasoning_tokens", 0)
        for count, mark in ((self.cut, "cut"), (self.trimmed, "trimmed")):
            if call.get(mark):
                count[call["role"]] += 1
        if call["cost"] is None:
            self.unpriced += 1
        else:
            self.cost += call["cost"]

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def to_json(self) -> dict:
        """Returns the counts, as `usage` in search.json and usage.json holds them; those of reasoning and cut replies if there are any."""
        rare = ("reasoning_tokens", "cut", "trimmed")
        counts = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}
        return {name: value for name, value in counts.items() if value or name not in rare}


class Budget:
    """Caps on calls, tokens and dollars in total, over all runs that share a journal; None means no cap.

    Calls in flight when a cap is reached are completed and journaled, so tokens and dollars can exceed it by those; calls cannot.
    """

    def __init__(self, caps: Mapping | None = None, place: ConfigLocation = ROLES):
        """`caps`: by the names in CAPS; `place`: where they are configured, for error messages."""
        self._place = place
        self._caps = dict.fromkeys(CAPS) | dict(caps or {})

    def check_models(self, models: Mapping[str, str]) -> None:
        """Raises UserError if dollars are capped and one of `models` (by role) has no known price."""
        for role, model in models.items():
            if self._caps["dollars"] is not None and not has_known_price(model):
                budget = f"{self._place.node}.budget"
                raise UserError(
                    f"{budget}.dollars needs a known price, and nobody knows that of {model} ({self._place.model(role)}): "
                    f"cap {budget}.calls or {budget}.tokens instead"
                )

    def check(self, usage: Usage, in_flight: int) -> None:
        """Raises BudgetSpent if no further call may be made. `in_flight`: the number of calls that `usage` does not count yet."""
        used = {"calls": usage.calls.total() + in_flight, "tokens": usage.tokens, "dollars": usage.cost}
        for name, cap in self._caps.items():
            if cap is not None and used[name] >= cap:
                raise BudgetSpent(f"{self._place.node}.budget.{name}={cap:g} is spent")

    def check_batches(self, usage: Usage, calls: Sequence[tuple[Mapping, int]]) -> None:
        """Raises BudgetSpent if calls in batches, each given as (its model's config, prompt tokens), could exceed a cap.

        The worst case is a reply of `max_tokens` to each. Raises UserError if tokens or dollars are capped and `max_tokens` is null.
        """
        limited = {name: cap for name, cap in self._caps.items() if cap is not None}
        budget = f"{self._place.node}.budget"
        if limited.keys() - {"calls"} and any(model["max_tokens"] is None for model, _ in calls):
            raise UserError(
                f"{self._place.node}.batch=true: what a batch may take is bounded by the limit of a reply, which is null: give it"
                f" (max_tokens; generation.max_new_tokens), or cap {budget}.calls alone"
            )
        most = {"calls": len(calls), "tokens": 0, "dollars": 0.0}
        for model, prompt_tokens in calls if limited else ():
            most["tokens"] += prompt_tokens + (model["max_tokens"] or 0)
            most["dollars"] += batch_cost(model["model"], prompt_tokens, model["max_tokens"] or 0) or 0.0
        used = {"calls": usage.calls.total(), "tokens": usage.tokens, "dollars": usage.cost}
        for name, cap in limited.items():
            if used[name] + most[name] > cap:
                raise BudgetSpent(
                    f"{budget}.{name}={cap:g}: {used[name]:.6g} are used, and {len(calls)} questions in batches may take up to"
                    f" {most[name]:.6g} more; raise the cap, and the same command goes on"
                )
