"""Reads from an error message that a prompt is too long for a model, and by how much, in the wordings of servers and providers."""

import re
from dataclasses import dataclass

_TOO_LONG = re.compile(
    r"context[ _]length[ _]exceeded|ContextWindowExceeded|exceed_context_size"
    r"|maximum (context|prompt|input|model) length|reduce (the|your) (length|prompt)"
    r"|(exceeds?|longer than|larger than) [^.]{0,60}\b(context|(model|prompt|input) length|maximum (allowed length|number of tokens|size))"
    r"|\b(prompt|input|context|messages?)( (is|are))? too (long|large)|input tokens exceed|string too long"
    r"|request[ _](entity[ _])?too[ _]large|payload too large|`inputs`[^.]{0,40} must (be|have)|range of input length"
    r"|length is \d+ while limit is|max_tokens must be at least 1, got -",
    re.IGNORECASE,
)
_COUNTS_REPLY = re.compile(r"completion|output|max_(new_|completion_)?tokens|in total|total of", re.IGNORECASE)

# Where messages name the most tokens that a model takes; in TGI's second form that number is already too many.
_LIMIT = re.compile(
    r"(?:context|prompt|input|model) length(?: is| of|:)?(?: only)? (?P<a>\d+)|context (?:window|size) of (?P<b>\d+)"
    r"|(?:context length|allowed length|context size|tokens allowed) \((?P<c>\d+)|configured limit of (?P<d>\d+)|limit is (?P<e>\d+)"
    r"|must be <= (?P<f>\d+)|> (?P<g>\d+)(?: maximum|, decrease)|with (?P<h>\d+) maximum context|Limit (?P<i>\d+), Requested"
    r"|input length should be \[\d+, (?P<j>\d+)|n_ctx=(?P<k>\d+)|must have less than (?P<below>\d+) tokens",
    re.IGNORECASE,
)
# Where they name the tokens of the prompt; at the end those of prompt and reply together, for messages that name no others.
_PROMPT = (
    r"(\d+)(?: tokens)? (?:in|of|from) (?:the |your )?(?:input )?(?:messages|prompt|text input)",
    r"(\d+) input tokens",
    r"(?:messages|input) resulted in (\d+)",
    r"Given: (\d+)",
    r"(?:input|request|Requested tokens|Input length|token count) \((\d+)",
    r"prompt (?:is too long: |\(length |contains )(\d+)",
    r"exceed context limit: (\d+)",
    r"length is (\d+) while",
    r"request contains (\d+)",
    r"n_prompt_tokens=(\d+)",
    r"Requested (?:about )?(\d+)",
)


@dataclass(frozen=True)
class Overflow:
    """How far a prompt is too long. A number that the server does not name is None.

    `limit`: the most tokens that the model takes. `counts_reply`: these include the tokens that are left for the reply.
    """

    limit: int | None = None
    prompt_tokens: int | None = None
    counts_reply: bool = False


def overflow_in(message: str) -> Overflow | None:
    """Returns by how much a prompt is too long according to an error message; None if the error is another one."""
    if not _TOO_LONG.search(message):
        return None
    message = re.sub(r"(?<=\d)[,_](?=\d{3}\b)", "", message)  # 200,000
    limit = None
    if found := _LIMIT.search(message):
        limit = int(found[found.lastgroup]) - (found.lastgroup == "below")
    numbers = (re.search(pattern, message, re.IGNORECASE) for pattern in _PROMPT)
    prompt_tokens = next((int(number[1]) for number in numbers if number), None)
    return Overflow(limit, prompt_tokens, bool(_COUNTS_REPLY.search(message)))
