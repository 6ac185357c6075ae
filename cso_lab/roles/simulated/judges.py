"""Three simulated judges: they compare two replies, or score one, by the seeker's hidden state and features of the text.

They have different preferences and different noise. Their verdicts are no evidence about people or language models.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litellm.llms.custom_llm import CustomLLMError

from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.core.strategies import SETS, parse_reply
from cso_lab.roles.simulated import seeker_state


@dataclass(frozen=True)
class JudgeProfile:
    """How a judge differs from the others. All values are on the scale of qualities, about 0 to 1.

    `warmth`, `use`: bonus for warm and for useful strategies. `noise`: standard deviation of its perception. `margin`: differences below
    it are ties. `first`: bonus for the reply that is shown first.
    """

    warmth: float
    use: float
    noise: float
    margin: float
    first: float


JUDGE_PROFILES: Mapping[str, JudgeProfile] = {
    "judge_warm": JudgeProfile(warmth=0.3, use=0.05, noise=0.04, margin=0.06, first=0.0),
    "judge_practical": JudgeProfile(warmth=0.05, use=0.3, noise=0.05, margin=0.08, first=0.01),
    "judge_strict": JudgeProfile(warmth=0.1, use=0.1, noise=0.06, margin=0.04, first=0.02),
}

WARM = ("Emotional Validation", "Empathetic Statements", "Avoid Judgment and Criticism", "Reflection of Feelings")
USEFUL = ("Collaborative Planning", "Share Information", "Providing Suggestions", "Information")
# Strategies by the stage of Hill's helping skills that they serve.
HELPING_STAGES: Mapping[str, tuple[str, ...]] = {
    "exploration": (*WARM, "Question", "Restatement or Paraphrasing"),
    "insight": ("Provide Different Perspectives", "Reframe Negative Thoughts", "Self-disclosure"),
    "action": (*USEFUL, "Affirmation", "Affirmation and Reassurance"),
}
ENOUGH = 3  # perfectly fitting turns that a stage needs
UNLABELLED_FIT = 0.3  # of a reply without a strategy label: that of a random strategy
FULL_LENGTH = 12  # words; shorter replies count as less complete
_REPLY = re.compile(r"^Reply(?: [AB])?: (.*)$", re.MULTILINE)
_CRITERION = re.compile(r"^ *([a-z]+):", re.MULTILINE)
_SCALE = re.compile(r"integer from (\d+)\D+?(\d+)")


def answer(
    profile: JudgeProfile, system: str, turns: Sequence[Turn], remainder: str, names: Sequence[str], rng: random.Random
) -> str:
    """Returns what a judge says of replies, a JSON object by criterion: "A", "B" or "tie" for two replies, an integer for one.

    `system`: its system prompt; `turns`: the dialogue; `remainder`: its prompt after the transcript; `names`: the strategies in use.
    Raises CustomLLMError if the prompts have no reply or no known criterion.
    """
    replies = _REPLY.findall(remainder)
    qualities = [_qualities(reply, turns, names, profile) for reply in replies]
    criteria = _criteria(system, qualities)
    if not criteria or len(qualities) > 2:
        raise CustomLLMError(400, "the simulated judge finds no reply after the dialogue, or no criterion that it knows")
    perceived = [_perceived(quality, criteria, profile, rng) for quality in qualities]
    if len(perceived) == 2:
        return json.dumps(_comparison(*perceived, profile))
    scale = _SCALE.search(system)
    low, high = map(int, scale.groups()) if scale else (1, 5)
    return json.dumps({c: round(low + min(max(perceived[0][c], 0.0), 1.0) * (high - low)) for c in criteria})


def compare_conversations(
    profile: JudgeProfile, system: str, conversations: Sequence[Sequence[Turn]], names: Sequence[str], rng: random.Random
) -> str:
    """Returns what a judge says of two conversations: a JSON object from criterion to "A", "B" or "tie"; see `answer`."""
    qualities = [conversation_qualities(turns, names, profile) for turns in conversations]
    criteria = _criteria(system, qualities)
    if not criteria:
        raise CustomLLMError(400, "the simulated judge finds no criterion of conversations that it knows")
    return json.dumps(_comparison(*(_perceived(quality, criteria, profile, rng) for quality in qualities), profile))


def conversation_qualities(turns: Sequence[Turn], names: Sequence[str], profile: JudgeProfile) -> dict[str, float]:
    """Returns the quality of a conversation by criterion, 0 to about 1.

    That of a stage is the sum of the fits of the turns whose strategy belongs to it, ENOUGH and more of them being 1; turns without a
    strategy belong to none. The overall quality takes in the mean fit of all turns and repeated replies.
    """
    fits, texts = [], [turn.text for turn in turns if turn.speaker == SUPPORTER]
    quality = dict.fromkeys(HELPING_STAGES, 0.0)
    for i, turn in enumerate(turns):
        if turn.speaker != SUPPORTER:
            continue
        fit = seeker_state.relative(seeker_state.fits(turns[:i]), names).get(turn.strategy, UNLABELLED_FIT)
        fits.append(min(fit, 1.0))
        for stage, strategies in HELPING_STAGES.items():
            quality[stage] += fits[-1] * (turn.strategy in strategies) / ENOUGH
    quality = {stage: min(value, 1.0) for stage, value in quality.items()}
    fit = sum(fits) / max(len(fits), 1)
    repeated = 1 - len(set(texts)) / max(len(texts), 1)
    quality["overall"] = 0.5 * fit + 0.5 * sum(quality.values()) / len(HELPING_STAGES) - 0.3 * repeated
    quality["exploration"] *= 1 + profile.warmth
    quality["action"] *= 1 + profile.use
    return quality


def _criteria(system: str, qualities: Sequence[Mapping[str, float]]) -> list[str]:
    """Returns the criteria in a system prompt that the qualities have."""
    return [name for name in _CRITERION.findall(system) if qualities and name in qualities[0]]


def _perceived(
    quality: Mapping[str, float], criteria: Sequence[str], profile: JudgeProfile, rng: random.Random
) -> dict[str, float]:
    return {criterion: quality[criterion] + rng.gauss(0, profile.noise) for criterion in criteria}


def _comparison(first: Mapping[str, float], second: Mapping[str, float], profile: JudgeProfile) -> dict[str, str]:
    return {c: _better(value + profile.first - second[c], profile.margin) for c, value in first.items()}


def _better(difference: float, margin: float) -> str:
    return "tie" if abs(difference) < margin else "A" if difference > 0 else "B"


def _qualities(reply: str, turns: Sequence[Turn], names: Sequence[str], profile: JudgeProfile) -> dict[str, float]:
    """Returns the quality of a reply by criterion, about 0 to 1."""
    strategy, text = _strategy(reply)
    state = seeker_state.infer_state(turns, names)
    fit = min(state.fit.get(strategy, UNLABELLED_FIT), 1.0)
    words = text.lower().split()
    length = min(len(words) / FULL_LENGTH, 1.0)
    overlap = min(len(_content_words(text) & _content_words(_last_seeker_text(turns))) / 3, 1.0)
    repeated = any(turn.text == text for turn in turns)
    warm, useful = strategy in WARM, strategy in USEFUL
    bonus = profile.warmth * warm + profile.use * useful
    quality = {
        "empathy": 0.6 * fit + 0.2 * warm + 0.2 * overlap,
        "information": 0.2 + 0.4 * fit * useful + 0.3 * length,
        "humanoid": 0.4 + 0.5 * length - 0.5 * repeated,
        "strategy": 0.9 * fit - 0.2 * repeated,
        "acceptance": 0.5 * fit + 0.4 * length - 0.3 * repeated,
        "effectiveness": 0.7 * fit + 0.2 * length - 0.3 * repeated,
        "sensitivity": 0.5 * fit + 0.2 * warm + 0.2 * overlap,
        "alignment": 0.0 if strategy is None else 0.5 + 0.2 * overlap + 0.2 * length,
    }
    quality["satisfaction"] = sum(quality[part] for part in ("acceptance", "effectiveness", "sensitivity")) / 3
    return {criterion: value + (0 if criterion == "alignment" else bonus * fit) for criterion, value in quality.items()}


def _strategy(reply: str) -> tuple[str | None, str]:
    """Returns (the strategy a reply is labelled with or None, its text without the label)."""
    for strategies in SETS.values():
        name, text = parse_reply(reply, strategies)
        if name is not None:
            return name, text
    return None, reply


def _last_seeker_text(turns: Sequence[Turn]) -> str:
    return next((turn.text for turn in reversed(turns) if turn.speaker == SEEKER), "")


def _content_words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z']+", text.lower()) if len(word) > 4}
