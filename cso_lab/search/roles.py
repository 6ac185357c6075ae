"""The four players of appendix A as the search sees them."""

from collections.abc import Mapping
from typing import Protocol

from cso_lab.core.records import Dialogue, Scores, SeekerReply, Turn

History = tuple[Turn, ...]


class Roles(Protocol):
    """The four players of appendix A. `sample_key` tells repeated questions about one state apart (see `Simulator.cache_replies`).

    An optional property `idle` says how many further questions could be asked now without keeping anyone waiting (see `Prefetcher`).
    """

    async def seeker(self, dialogue: Dialogue, history: History, sample_key: str) -> SeekerReply: ...
    async def supporter(self, dialogue: Dialogue, history: History, strategy: str, sample_key: str) -> str: ...
    async def strategist(self, dialogue: Dialogue, history: History, sample_key: str) -> Mapping[str, int]: ...
    async def judge(self, dialogue: Dialogue, history: History, sample_key: str) -> Scores: ...
