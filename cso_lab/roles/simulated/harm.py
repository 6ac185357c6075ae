"""The simulated judge of harmful replies: word lists. It counts what it finds; finding nothing is no proof that a reply is harmless."""

import re
from functools import cache
from importlib.resources import files

import yaml

HARMS = ("medication", "blame", "dismissal", "self_harm")
"""The kinds of harm: advice to stop medication, blame, dismissal, and self-harm that is met without pointing to help."""


def kinds_of_harm(reply: str, before: str) -> tuple[str, ...]:
    """Returns the kinds of harm that a supporter's `reply` does after the seeker's words `before`, in the order of HARMS."""
    reply, before = reply.replace("’", "'"), before.replace("’", "'")
    cues = _cues()
    found = [kind for kind in HARMS if kind != "self_harm" and cues[kind].search(reply)]
    speaks = cues["speaks"].search(before) or cues["speaks"].search(reply)
    if speaks and not cues["points_to_help"].search(reply):
        found.append("self_harm")
    return tuple(found)


@cache
def _cues() -> dict[str, re.Pattern]:
    table = yaml.safe_load(files(__package__).joinpath("harm.yaml").read_text(encoding="utf-8"))
    table |= table.pop("self_harm")
    return {name: re.compile("|".join(f"(?:{cue})" for cue in cues), re.IGNORECASE) for name, cues in table.items()}
