"""Where a client is configured, so that its errors name the keys to change."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConfigLocation:
    """`node`: the key of the client's limits; `model_key`: the key of a model, with {role} for the role that asks it."""

    node: str
    model_key: str

    def model(self, role: str) -> str:
        """Returns the key of the model that plays `role`."""
        return self.model_key.format(role=role)


ROLES = ConfigLocation("roles", "roles.{role}.model")
