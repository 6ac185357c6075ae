"""How fast a provider may be asked."""

import asyncio


class RateLimiter:
    """Spaces the calls to one provider evenly, by requests and by tokens a minute, and pauses them when it asks for a pause.

    Evenly, not with a full minute's allowance at once: a burst at the start would make up to twice the limit in its first minute.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None):
        """None: no limit."""
        self._per_request = 60 / requests_per_minute if requests_per_minute else 0.0  # seconds
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._next_request = self._next_tokens = self._held_until = 0.0

    async def turn(self, tokens: int) -> None:
        """Wait until a call of about `tokens` may be made. First come, first served."""
        now = _now()
        at = max(now, self._next_request, self._next_tokens)
        self._next_request = max(now, self._next_request) + self._per_request
        self._next_tokens = max(now, self._next_tokens) + self._per_token * tokens
        await asyncio.sleep(at - now)

    def correct(self, tokens: int) -> None:
        """The call took so many tokens more than it was let through for; fewer when negative."""
        self._next_tokens += self._per_token * tokens

    def hold(self, seconds: float) -> None:
        """No call for the next `seconds`: the provider has said so."""
        self._held_until = max(self._held_until, _now() + seconds)

    @property
    def held(self) -> float:
        """Seconds until calls may be made again."""
        return max(0.0, self._held_until - _now())


def _now() -> float:
    return asyncio.get_running_loop().time()
