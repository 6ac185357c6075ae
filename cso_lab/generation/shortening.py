"""Conversations that turn out to be too long for a model on a server, whose tokens nobody counts here."""

from cso_lab.llm.client import estimated_tokens
from cso_lab.llm.prompt_limits import Overflow
from cso_lab.training.chat_format import SYSTEM, USER, Messages


def drop_oldest_turns(
    conversation: Messages, last: int, dropped: int, overflow: Overflow, reply_tokens: int
) -> tuple[Messages, int] | None:
    """Returns (the conversation without its oldest turns, their number) for a model that refused it without the `dropped` oldest turns.

    By the limit that the server names, and the tokens it counted or else an estimate, as few turns are dropped as are needed; one seeker
    turn and its replies if it names none. The result opens, after the system prompt, with a seeker turn. The system prompt and the turns
    from number `last` on are always kept; returns None if there are no others left.
    """
    system = conversation[:1] if conversation[0]["role"] == SYSTEM else []
    first = len(system) + dropped
    starts = [i for i in range(first + 1, last + 1) if conversation[i]["role"] == USER]
    if not starts:
        return None
    start = starts[0]
    if overflow.limit is not None:
        refused = [*system, *conversation[first:]]
        room = overflow.limit - (reply_tokens if overflow.counts_reply else 0)
        tokens_a_character = (overflow.prompt_tokens or estimated_tokens(refused)) / _characters(refused)
        fitting = (i for i in starts if _characters([*system, *conversation[i:]]) * tokens_a_character <= room)
        start = next(fitting, starts[-1])
    return [*system, *conversation[start:]], start - len(system)


def _characters(messages: Messages) -> int:
    return sum(len(message["content"]) for message in messages)
