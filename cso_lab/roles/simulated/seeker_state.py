"""The simulated seeker's hidden state, and how well each strategy fits it.

The state is not passed between role players: each infers it from the text of the dialogue, as a model that reads the dialogue could learn
to do.
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

# How well a strategy meets a need, 0 to 1; 0 if the need is not listed.
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
NO_LEANING = (0.0,) * len(NEEDS)
USUAL_LENGTH = 7  # supporter turns
CUE_WEIGHT = 0.9  # added to the log-prior of a need per unit of cue strength
REPEATED = 0.75  # factor on the fit of a strategy that was used in the turn before
MISSED, POOR = 0.35, 0.6  # relative fits below which a reply misses the need, or meets it poorly
HURT_BY_MISSED, HURT_BY_POOR = 1.6, 1.0  # what such a reply adds to the strain
FADING = 0.6  # factor on the strain per turn


@dataclass(frozen=True)
class State:
    """The seeker's state after a history.

    `fit`: by strategy, how well it meets the current needs, 1 for the best. `strain` (from 0): accumulated by replies that missed the
    need, fading over turns. `mood` (from 0): the sum of the fits of all replies. `turns`: number of supporter turns.
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
    """Returns the utterances of simulated supporters (by strategy) and seekers (by need, and "guarded" and "closing")."""
    return yaml.safe_load(files(__package__).joinpath("lines.yaml").read_text(encoding="utf-8"))


@cache
def conversation_lines() -> dict:
    """Returns the lines of the simulated seeker of whole conversations: {"resisting", "going_on"} by persona, "relieved" and "hurt"."""
    return yaml.safe_load(files(__package__).joinpath("conversation_lines.yaml").read_text(encoding="utf-8"))


@cache
def _guarded() -> frozenset[str]:
    resisting = (line for bank in conversation_lines()["resisting"].values() for line in bank)
    return frozenset((*lines()["seeker"]["guarded"], *resisting))


@lru_cache(maxsize=100_000)
def cue_strengths(text: str) -> tuple[float, ...]:
    """Returns the summed weights of the cues for each need in one utterance, in the order of NEEDS."""
    text = text.replace("’", "'")
    return tuple(sum(weight for cue, weight in _cues()[need] if cue.search(text)) for need in NEEDS)


def needs(history: Sequence[Turn]) -> list[float]:
    """Returns the probability of each need after `history`, in the order of NEEDS, by the stage and the seeker's last open utterance."""
    return list(_needs(*_situation(history)))


def _situation(history: Sequence[Turn]) -> tuple[int, str]:
    """Returns what needs depend on: the number of supporter turns, and the seeker's last utterance that is not guarded."""
    utterances = (turn.text for turn in reversed(history) if turn.speaker == SEEKER)
    return sum(turn.speaker != SEEKER for turn in history), next((text for text in utterances if text not in _guarded()), "")


@lru_cache(maxsize=100_000)
def _needs(turns: int, open_words: str, leaning: tuple[float, ...] = NO_LEANING) -> tuple[float, ...]:
    """`leaning`: what a persona adds to the log-prior of each need."""
    stage = min(turns / (USUAL_LENGTH - 1), 1.0) * 2
    low, share = min(int(stage), 1), stage - min(int(stage), 1)
    logits = []
    for need, strength, more in zip(NEEDS, cue_strengths(open_words), leaning, strict=True):
        prior = STAGES[need][low] * (1 - share) + STAGES[need][low + 1] * share
        logits.append(prior + CUE_WEIGHT * strength + more)
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return tuple(weight / sum(weights) for weight in weights)


def fits(history: Sequence[Turn]) -> dict[str, float]:
    """Returns the expected fit of each strategy to the current needs, 0 to 1, for the strategies of all sets."""
    last = next((turn.strategy for turn in reversed(history) if turn.speaker != SEEKER), None)
    return dict(fits_at(*_situation(history), last))


@lru_cache(maxsize=100_000)
def fits_at(turns: int, open_words: str, last: str | None, leaning: tuple[float, ...] = NO_LEANING) -> Mapping[str, float]:
    """Returns `fits` after so many supporter turns, the last of which had the strategy `last`; the seeker's last open words are given.

    `leaning`: what a persona adds to the log-prior of each need. Cached: callers must not change the result.
    """
    probability = dict(zip(NEEDS, _needs(turns, open_words, leaning), strict=True))
    return {
        strategy: sum(degree * probability[need] for need, degree in meets.items()) * (REPEATED if strategy == last else 1.0)
        for strategy, meets in MEETS.items()
    }


def infer_state(history: Sequence[Turn], strategies: Sequence[str]) -> State:
    """Returns the state after `history`, from its first turn on; supporter turns without a strategy change neither strain nor mood."""
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
    """Returns the fits of `strategies` only, scaled so that the best is 1."""
    best = max(raw[strategy] for strategy in strategies)
    return {strategy: raw[strategy] / best for strategy in strategies}


def next_need(history: Sequence[Turn], state: State, rng: random.Random) -> str:
    """Returns a random need of the seeker after a supporter turn: as before if the turn missed it, else by the new stage alone."""
    if state.last_fit < POOR:
        probabilities = needs(history)
    else:
        probabilities = needs([Turn(SEEKER, "")] + [turn for turn in history if turn.speaker != SEEKER])
    return rng.choices(NEEDS, probabilities)[0]
