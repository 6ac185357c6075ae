"""Parameters of requests that models have refused: renamed, left out, or an error that names the key to change."""

import sys
from collections.abc import Collection, Mapping

from cso_lab.llm.config_location import ConfigLocation
from cso_lab.llm.errors import InvalidRequest, PromptTooLong, ServiceError, TooManyTokens, one_line
from cso_lab.llm.parameters import refused_parameter, refuses_max_tokens

# A server that refuses one of these names is sent the other.
_OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


class RefusedParameters:
    """What the models of one client have refused so far. `place` is where the client is configured."""

    def __init__(self, place: ConfigLocation):
        self._place = place
        self._names: dict[str, dict[str, str | None]] = {}  # by model: {refused name: the other name, None: left out}

    def applied(self, name: str, parameters: Mapping[str, object]) -> dict[str, object]:
        """Returns the parameters of a request to the model `name` under the names that it has not refused."""
        names = self._names.get(name, {})
        sent = {parameter: names.get(parameter, parameter) for parameter in parameters}
        return {sent[parameter]: value for parameter, value in parameters.items() if sent[parameter]}

    def add(self, role: str, model: Mapping, error: InvalidRequest, sent: Collection[str]) -> None:
        """Adds the parameter, one of those `sent`, that `model` refuses in `error`, with a warning; the request can then be sent again.

        Raises ServiceError, which names the key to change, if the parameter decides on the replies, and `error` itself if it is about
        something else.
        """
        name, place = model["model"], self._place
        if _asks_for_too_many_tokens(error, model["max_tokens"]):
            raise TooManyTokens(f"{name} as {role}: {one_line(error.message)}: lower {place.max_tokens(role)}") from None
        parameter = None if isinstance(error, PromptTooLong) else refused_parameter(error.message, sent)
        if parameter is None:
            raise error
        known = self._names.setdefault(name, {})
        if parameter in known:
            return  # another request has met the same meanwhile
        if parameter == "temperature" or parameter in known.values():
            key = place.temperature(role) if parameter == "temperature" else place.max_tokens(role)
            advice = f"give {key}=null, and the model's own default holds"
            raise ServiceError(f"{name} as {role}: {one_line(error.message)}: {advice}") from None
        known[parameter] = other = _OTHER_NAMES.get(parameter)
        what = f"is sent as {other} instead" if other else "is left out, so that its replies may differ from run to run"
        print(f"warning: {name} does not take the parameter {parameter}, which {what}", file=sys.stderr)


def _asks_for_too_many_tokens(error: InvalidRequest, max_tokens: int | None) -> bool:
    """Returns whether no request for replies of `max_tokens` could be answered, however short its prompt."""
    if not isinstance(error, PromptTooLong):
        return refuses_max_tokens(error.message)
    overflow = error.overflow
    return overflow.counts_reply and overflow.limit is not None and (max_tokens or 0) >= overflow.limit
