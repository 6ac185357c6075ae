"""How replies are made to begin with one of several openings, "(Strategy)" each: token by token, or as a whole by probability."""

from collections.abc import Sequence

import torch

Ids = list[int]


def constrain(openings: Sequence[Sequence[Ids]], replies: Sequence[Ids], scores: torch.Tensor) -> None:
    """Masks, in the scores of replies whose opening is incomplete, all tokens that continue none of the reply's own openings."""
    for row, (allowed_openings, start) in enumerate(zip(openings, replies, strict=True)):
        if any(tuple(opening) == tuple(start[: len(opening)]) for opening in allowed_openings):
            continue
        allowed = sorted({opening[len(start)] for opening in allowed_openings if list(opening[: len(start)]) == start})
        if allowed:
            kept = scores[row, allowed].clone()
            scores[row] = -torch.inf
            scores[row, allowed] = kept


class PrefixTable:
    """The prefixes after which openings go on, the empty one first, each once: what a model must read to score all openings.

    Of each prefix: `last_tokens` (0 for the empty one), `depth` (its length) and `follows`, whether it begins with each of the others.
    """

    def __init__(self, openings: Sequence[Ids]):
        steps = [[(tuple(opening[:length]), token) for length, token in enumerate(opening)] for opening in openings]
        index: dict[tuple[int, ...], int] = {}
        for prefix in (prefix for one in steps for prefix, _ in one):
            index.setdefault(prefix, len(index))
        # Of each opening: the prefixes before its tokens, and these tokens.
        self._steps = [([index[prefix] for prefix, _ in one], [token for _, token in one]) for one in steps]
        self.last_tokens = [prefix[-1] if prefix else 0 for prefix in index]
        self.depth = [len(prefix) for prefix in index]
        self.follows = [[prefix[: len(other)] == other for other in index] for prefix in index]

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the summed log-probability of each opening, (replies, openings); `logits`: (replies, prefixes, vocabulary)."""
        normaliser = logits.logsumexp(-1)
        sums = [logits[..., prefixes, tokens].sum(-1) - normaliser[..., prefixes].sum(-1) for prefixes, tokens in self._steps]
        return torch.stack(sums, dim=-1)
