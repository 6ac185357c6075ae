"""The four players of the search (appendix A): prompts, reply parsing, the LLM client, and the simulated players."""

import os
from dataclasses import dataclass

# litellm asks the network for prices when it is imported, unless it has been told not to.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

# The keys of the roles' configuration that go to the client. They change how calls are made and not what is asked.
LIMITS = (
    *("max_concurrency", "timeout", "attempts", "longest_pause", "requests_per_minute", "tokens_per_minute"),
    *("budget", "api_base", "api_key_env"),
)


@dataclass(frozen=True)
class Place:
    """Where a client's limits and models are configured, so that errors name the keys to change."""

    node: str
    model_key: str

    def model(self, role: str) -> str:
        """The key of the model that plays `role`."""
        return self.model_key.format(role=role)


ROLES = Place("roles", "roles.{role}.model")
