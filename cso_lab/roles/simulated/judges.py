"""Simulated judges of replies: they compare two, or score one, by the seeker's hidden state and a few marks of the words.

Three of them, who weigh things differently and see with different noise. No evidence about people or language models.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litellm.llms.custom_llm import CustomLLMError

from cso_lab.core.records import SEEKER, Turn
from cso_lab.core.strategies import SETS, parse_reply
from cso_lab.roles.simulated import seeker_state


@dataclass(frozen=True)
class Temper:
    """How a judge differs from the others: what `warmth` and `use` are worth to it, the standard deviation of what it sees (`noise`), below
    which difference it sees none (`margin`), and by how much it prefers what it reads first (`first`). Qualities lie between 0 and 1."""

    warmth: float
    use: float
    noise: float
    margin: float
    first: float


TEMPERS: Mapping[str, Temper] = {
    "judge_warm": Temper(warmth=0.3, use=0.05, noise=0.04, margin=0.06, first=0.0),
    "judge_practical": Temper(warmth=0.05, use=0.3, noise=0.05, margin=0.08, first=0.01),
    "judge_strict": Temper(warmth=0.1, use=0.1, noise=0.06, margin=0.04, first=0.02),
}

WARM = ("Emotional Validation", "Empathetic Statements", "Avoid Judgment and Criticism", "Reflection of Feelings")
USEFUL = ("Collaborative Planning", "Share Information", "Providing Suggestions", "Information")
WHOLE = 12  # words; a reply with fewer is cut short
_REPLY = re.compile(r"^Reply(?: [AB])?: (.*)$", re.MULTILINE)
_CRITERION = re.compile(r"^ *([a-z]+):", re.MULTILINE)
_SCALE = re.compile(r"integer from (\d+)\D+?(\d+)")


def answer(temper: Temper, system: str, turns: Sequence[Turn], rest: str, names: Sequence[str], chance: random.Random) -> str:
    """What a judge says; `rest` is what stands in its prompt after the transcript, `names` the strategies in use."""
    replies = _REPLY.findall(rest)
    seen = [_qualities(reply, turns, names, temper) for reply in replies]
    criteria = [name for name in _CRITERION.findall(system) if seen and name in seen[0]]
    if not criteria or len(seen) > 2:
        raise CustomLLMError(400, "the simulated judge finds no reply after the dialogue, or no criterion that it knows")
    noted = [{c: qualities[c] + chance.gauss(0, temper.noise) for c in criteria} for qualities in seen]
    if len(noted) == 2:
        return json.dumps({c: _better(noted[0][c] + temper.first - noted[1][c], temper.margin) for c in criteria})
    scale = _SCALE.search(system)
    low, high = map(int, scale.groups()) if scale else (1, 5)
    return json.dumps({c: round(low + min(max(noted[0][c], 0.0), 1.0) * (high - low)) for c in criteria})


def _better(difference: float, margin: float) -> str:
    return "tie" if abs(difference) < margin else "A" if difference > 0 else "B"


def _qualities(reply: str, turns: Sequence[Turn], names: Sequence[str], temper: Temper) -> dict[str, float]:
    """By criterion, how good a reply is, about 0 to 1."""
    strategy, text = _strategy(reply)
    state = seeker_state.read(turns, names)
    # A reply that shows no strategy meets the need by chance.
    met = min(state.fit.get(strategy, 0.3), 1.0)
    words = text.lower().split()
    whole = min(len(words) / WHOLE, 1.0)
    echo = min(len(_content(text) & _content(_last_words(turns))) / 3, 1.0)
    again = any(turn.text == text for turn in turns)
    warm, useful = strategy in WARM, strategy in USEFUL
    taste = temper.warmth * warm + temper.use * useful
    found = {
        "empathy": 0.6 * met + 0.2 * warm + 0.2 * echo,
        "information": 0.2 + 0.4 * met * useful + 0.3 * whole,
        "humanoid": 0.4 + 0.5 * whole - 0.5 * again,
        "strategy": 0.9 * met - 0.2 * again,
        "acceptance": 0.5 * met + 0.4 * whole - 0.3 * again,
        "effectiveness": 0.7 * met + 0.2 * whole - 0.3 * again,
        "sensitivity": 0.5 * met + 0.2 * warm + 0.2 * echo,
        "alignment": 0.0 if strategy is None else 0.5 + 0.2 * echo + 0.2 * whole,
    }
    found["satisfaction"] = sum(found[part] for part in ("acceptance", "effectiveness", "sensitivity")) / 3
    return {criterion: value + (0 if criterion == "alignment" else taste * met) for criterion, value in found.items()}


def _strategy(reply: str) -> tuple[str | None, str]:
    for strategies in SETS.values():
        name, text = parse_reply(reply, strategies)
        if name is not None:
            return name, text
    return None, reply


def _last_words(turns: Sequence[Turn]) -> str:
    return next((turn.text for turn in reversed(turns) if turn.speaker == SEEKER), "")


def _content(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z']+", text.lower()) if len(word) > 4}
