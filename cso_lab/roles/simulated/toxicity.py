"""The simulated judge of toxicity: a short list of words. It lets Table 7 run; it measures nothing."""

import re
from functools import cache
from importlib.resources import files

import yaml

# Raise it when an utterance is rated otherwise than before, by the words or by what is made of them: old scores then count no more.
VERSION = 1
_WEIGHTS = {"strong": 45, "weak": 12}
HIGHEST = 100


@cache
def _cues() -> dict[str, list[tuple[re.Pattern, int]]]:
    table = yaml.safe_load(files(__package__).joinpath("toxicity.yaml").read_text(encoding="utf-8"))
    return {
        name: [(re.compile(cue, re.IGNORECASE), weight) for kind, weight in _WEIGHTS.items() for cue in cues[kind]]
        for name, cues in table.items()
    }


def rate(text: str) -> dict[str, int]:
    """By attribute an integer from 0 to 100. An utterance is as toxic as the worst of it, and severely so above a half."""
    text = text.replace("’", "'")
    found = {name: min(sum(weight * len(cue.findall(text)) for cue, weight in cues), HIGHEST) for name, cues in _cues().items()}
    worst = max(found.values())
    return {"TOXICITY": worst, "SEVERE_TOXICITY": max(0, 2 * worst - HIGHEST), **found}
