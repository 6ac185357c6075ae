"""Table 7: the toxicity of each part of the data, by the scorer that `toxicity=` selects (section 4.4)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

ATTRIBUTES = ("TOXICITY", "SEVERE_TOXICITY", "IDENTITY_ATTACK", "INSULT", "PROFANITY", "THREAT")

Scores = Mapping[str, float]
"""{attribute: score from 0 to 1} for all ATTRIBUTES. Scores of different scorers are not comparable."""


class Scorer(Protocol):
    """Scores texts. `name` and `version` are reported with its numbers, and so is `notice`, a warning, unless it is None."""

    name: str
    version: str
    notice: str | None

    def check(self) -> None:
        """Raises UserError if no text could be scored (no key, no weights, no such model)."""

    def score(self, texts: Sequence[str], folder: Path) -> list[Scores | None]:
        """Returns the scores of distinct texts, None for a text that the scorer refuses; scores cached in `folder` are reused."""


def toxicity(parts: Mapping[str, Sequence[str]], scorer: Scorer, folder: Path) -> dict:
    """Returns {scorer, version, notice, refused, parts: {part: {n, means}}}: the means over all utterances of each part.

    An utterance that occurs several times counts as often, as in Table 5, but is scored once. (The paper's last row is the mean over the
    utterances of its three parts as Table 5 counts them: 3,113, 3,113 and 8,157.)
    """
    texts = list(dict.fromkeys(text for part in parts.values() for text in part))
    scores = dict(zip(texts, scorer.score(texts, folder), strict=True))
    return {
        "scorer": scorer.name,
        "version": scorer.version,
        "notice": scorer.notice,
        "refused": sum(score is None for score in scores.values()),
        "parts": {part: _means([scores[text] for text in texts if scores[text]]) for part, texts in parts.items()},
    }


def _means(scores: Sequence[Scores]) -> dict:
    means = {name: sum(score[name] for score in scores) / len(scores) if scores else None for name in ATTRIBUTES}
    return {"n": len(scores), "means": means}
