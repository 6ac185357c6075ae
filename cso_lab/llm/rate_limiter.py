"""Limits how fast requests are sent to one provider."""

import asyncio

MAX_RETRY_AFTER = 300
"""Seconds. A provider that asks for a longer pause (until its daily quota is renewed, say) stops the run instead."""


class RateLimiter:
    """Spaces the calls to one provider evenly, by requests and by tokens per minute, and pauses them when the provider asks for it.

    Evenly rather than as a full minute's allowance at once: a burst at the start could use twice the limit within one minute.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None):
        """A limit of None means no limit."""
        self._per_request = 60 / requests_per_minute if requests_per_minute else 0.0  # seconds
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._next_request = self._next_tokens = self._paused_until = 0.0

    async def acquire(self, tokens: int) -> None:
        """Waits until a call of about `tokens` tokens may be made, in first-in, first-out order."""
        now = _now()
        start = max(now, self._next_request, self._next_tokens)
        self._next_request = max(now, self._next_request) + self._per_request
        self._next_tokens = max(now, self._next_tokens) + self._per_token * tokens
        await asyncio.sleep(start - now)

    def adjust(self, tokens: int) -> None:
        """Corrects the estimate of a finished call: it used `tokens` more (or, if negative, fewer) than it acquired."""
        self._next_tokens += self._per_token * tokens

    def pause(self, seconds: float) -> None:
        """Pauses all calls for the next `seconds`; a longer pause already in effect stays."""
        self._paused_until = max(self._paused_until, _now() + seconds)

    @property
    def paused_for(self) -> float:
        """Seconds until the pause ends; 0 if there is none."""
        return max(0.0, self._paused_until - _now())


def _now() -> float:
    return asyncio.get_running_loop().time()
