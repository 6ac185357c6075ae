"""The seeker's hidden state, and how far each strategy meets it.

The state is never sent anywhere: every player works it out anew from the words of the dialogue, as a model that reads
the dialogue could learn to.
"""

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import yaml

from cso_lab.core.records import SEEKER, Turn

NEEDS = ("heard", "comforted", "unjudged", "fairer_thought", "other_view", "knowledge", "plan", "encouragement")

# How far a strategy meets a need, 0 to 1. A strategy that is not listed for a need misses it.
MEETS: Mapping[str, Mapping[str, float]] = {
    "Emotional Validation": {"heard": 1.0, "comforted": 0.4, "unjudged": 0.3},
    "Affirmation": {"encouragement": 1.0, "plan": 0.2},
    "Collaborative Planning": {"plan": 1.0, "encouragement": 0.2, "knowledge": 0.2},
    "Empathetic Statements": {"comforted": 1.0, "heard": 0.4},
    "Avoid Judgment and Criticism": {"unjudged": 1.0, "heard": 0.2},
    "Provide Different Perspectives": {"other_view": 1.0, "fairer_thought": 0.3},
    "Reframe Negative Thoughts": {"fairer_thought": 1.0, "other_view": 0.2, "unjudged": 0.2},
    "Share Information": {"knowledge": 1.0, "plan": 0.2},
    # ESConv's strategies
    "Question": {"heard": 1.0, "plan": 0.1},
    "Restatement or Paraphrasing": {"heard": 0.8, "other_view": 0.4},
    "Reflection of Feelings": {"comforted": 1.0, "heard": 0.6},
    "Self-disclosure": {"unjudged": 1.0, "comforted": 0.3, "other_view": 0.3},
    "Affirmation and Reassurance": {"encouragement": 1.0, "fairer_thought": 0.7},
    "Providing Suggestions": {"plan": 1.0, "fairer_thought": 0.2},
    "Information": {"knowledge": 1.0, "other_view": 0.5},
    "Others": {"encouragement": 0.4},
}

# Log-prior of each need at the start, the middle and the end of a conversation; in between it is interpolated.
STAGES: Mapping[str, tuple[float, float, float]] = {
    "heard": (2.2, 0.2, -0.8),
    "comforted": (1.7, 0.9, -0.6),
    "unjudged": (0.9, 1.0, -0.3),
    "fairer_thought": (0.1, 1.0, 0.3),
    "other_view": (-0.5, 0.3, -0.6),
    "knowledge": (-0.8, 0.4, 0.0),
    "plan": (-0.8, 0.8, 1.3),
    "encouragement": (-1.0, 0.0, 1.8),
}
USUAL_LENGTH = 7  # supporter turns
CUE_WEIGHT = 0.9
REPEATED = 0.75  # the same strategy twice in a row is worth this share
MISSED, POOR = 0.35, 0.6  # below these shares of the best strategy's fit a reply misses the seeker, or only half helps
HURT_BY_MISSED, HURT_BY_POOR = 1.6, 1.0  # what such a reply adds to the seeker's strain
FADING = 0.6  # share of the strain that is left one turn later


@dataclass(frozen=True)
class State:
    """What the seeker feels after the history so far, hidden from everyone but the players of this simulation.

    `fit`: by strategy, how well it meets the need of the moment, 1 for the best. `strain` (0 up): hurt by replies that
    missed, fading. `mood` (0 up): what good replies have done so far. `turns`: supporter turns so far.
    """

    fit: Mapping[str, float]
    strain: float
    mood: float
    turns: int
    last_fit: float  # of the last supporter turn, 1 before there is one


@cache
def _cues() -> dict[str, list[tuple[re.Pattern, float]]]:
    table = yaml.safe_load(files(__package__).joinpath("cues.yaml").read_text(encoding="utf-8"))
    weights = {"strong": 2.0, "weak": 1.0}
    return {
        need: [(re.compile(cue, re.IGNORECASE), weights[kind]) for kind in weights for cue in table[need][kind]]
        for need in NEEDS
    }


@cache
def lines() -> dict[str, dict[str, list[str]]]:
    """What simulated supporters (by strategy) and seekers (by need, "guarded" and "closing") say."""
    return yaml.safe_load(files(__package__).joinpath("lines.yaml").read_text(encoding="utf-8"))


@cache
def _guarded() -> frozenset[str]:
    return frozenset(lines()["seeker"]["guarded"])


@lru_cache(maxsize=100_000)
def cue_strengths(text: str) -> tuple[float, ...]:
    """By need (in the order of NEEDS), the weight of the cues in one utterance."""
    text = text.replace("’", "'")
    return tuple(sum(weight for cue, weight in _cues()[need] if cue.search(text)) for need in NEEDS)


def needs(history: Sequence[Turn]) -> list[float]:
    """Probability of each need (in the order of NEEDS) after `history`, read off the seeker's last open words and the stage."""
    return list(_needs(*_situation(history)))


def _situation(history: Sequence[Turn]) -> tuple[int, str]:
    """All that needs are read off: the number of supporter turns, and the seeker's last open words."""
    said = (turn.text for turn in reversed(history) if turn.speaker == SEEKER)
    return sum(turn.speaker != SEEKER for turn in history), next((text for text in said if text not in _guarded()), "")


@lru_cache(maxsize=100_000)
def _needs(turns: int, open_words: str) -> tuple[float, ...]:
    stage = min(turns / (USUAL_LENGTH - 1), 1.0) * 2
    low, share = min(int(stage), 1), stage - min(int(stage), 1)
    logits = []
    for need, strength in zip(NEEDS, cue_strengths(open_words), strict=True):
        prior = STAGES[need][low] * (1 - share) + STAGES[need][low + 1] * share
        logits.append(prior + CUE_WEIGHT * strength)
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return tuple(weight / sum(weights) for weight in weights)


def fits(history: Sequence[Turn]) -> dict[str, float]:
    """How well each strategy meets the need of the moment, 0 to 1; `relative` compares those of one set."""
    last = next((turn.strategy for turn in reversed(history) if turn.speaker != SEEKER), None)
    return dict(_fits(*_situation(history), last))


@lru_cache(maxsize=100_000)
def _fits(turns: int, open_words: str, last: str | None) -> dict[str, float]:
    """`fits` of a situation and the supporter's last strategy; every caller gets the same dict."""
    probable = dict(zip(NEEDS, _needs(turns, open_words), strict=True))
    return {
        strategy: sum(degree * probable[need] for need, degree in meets.items()) * (REPEATED if strategy == last else 1.0)
        for strategy, meets in MEETS.items()
    }


def read(history: Sequence[Turn], strategies: Sequence[str]) -> State:
    """Follow the seeker through the whole history. Turns without a strategy are taken as harmless."""
    strain, mood, turns, last_fit = 0.0, 0.0, 0, 1.0
    for i, turn in enumerate(history):
        if turn.speaker == SEEKER:
            continue
        turns += 1
        if turn.strategy is None or i == 0:
            continue
        fit = relative(fits(history[:i]), strategies)
        last_fit = fit.get(turn.strategy, 1.0)
        strain = FADING * strain + (HURT_BY_MISSED if last_fit < MISSED else HURT_BY_POOR if last_fit < POOR else 0.0)
        mood += last_fit
    return State(relative(fits(history), strategies), strain, mood, turns, last_fit)


def relative(raw: Mapping[str, float], strategies: Sequence[str]) -> dict[str, float]:
    """Fits of `strategies` alone, scaled so that the best is 1."""
    best = max(raw[strategy] for strategy in strategies)
    return {strategy: raw[strategy] / best for strategy in strategies}


def next_need(history: Sequence[Turn], state: State, chance: random.Random) -> str:
    """What the seeker needs after a supporter turn: the same as before if it was missed, else drawn for the stage reached."""
    if state.last_fit < POOR:
        probable = needs(history)
    else:
        probable = needs([Turn(SEEKER, "")] + [turn for turn in history if turn.speaker != SEEKER])
    return chance.choices(NEEDS, probable)[0]
