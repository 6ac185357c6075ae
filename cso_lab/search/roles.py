"""The interface of the four roles of appendix A, as the search uses them."""

from collections.abc import Mapping
from typing import Protocol

from cso_lab.core.records import Dialogue, Scores, SeekerReply, Turn

History = tuple[Turn, ...]


class Roles(Protocol):
    """The four roles of appendix A. Questions with the same history and `sample_key` have the same answer; another `sample_key` draws
    another sample (see `Simulator.cache_replies`).

    An optional property `idle` (int) is the number of questions that could be asked now without delaying others (see `Prefetcher`).
    """

    async def seeker(self, dialogue: Dialogue, history: History, sample_key: str) -> SeekerReply:
        """Returns the seeker's reply to the last supporter turn."""

    async def supporter(self, dialogue: Dialogue, history: History, strategy: str, sample_key: str) -> str:
        """Returns a supporter's utterance in `strategy` after the last seeker turn."""

    async def strategist(self, dialogue: Dialogue, history: History, sample_key: str) -> Mapping[str, int]:
        """Returns scores from 0 to 10 for strategies of the next supporter turn; some strategies may be missing."""

    async def judge(self, dialogue: Dialogue, history: History, sample_key: str) -> Scores:
        """Returns the scores of the last supporter turn, {"E", "I", "H", "S"}, each 0 to 4."""
