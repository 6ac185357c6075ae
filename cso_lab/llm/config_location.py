"""Where in the configuration a client is described, so that its errors can name the keys to change."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConfigLocation:
    """`node`: the config node of the client's limits; `model_key`: the key of a role's model, and `max_tokens_key` that of the most tokens
    of its replies, both with {role} for the role's name."""

    node: str
    model_key: str
    max_tokens_key: str

    def model(self, role: str) -> str:
        """Returns the key of the model that plays `role`."""
        return self.model_key.format(role=role)

    def max_tokens(self, role: str) -> str:
        """Returns the key of the most tokens that a reply of `role` may have."""
        return self.max_tokens_key.format(role=role)


ROLES = ConfigLocation("roles", "roles.{role}.model", "roles.{role}.max_tokens")
