"""The simulated seeker of whole conversations: the hidden state of `seeker_state.py` with a persona and an intensity of its emotion.

It goes by the strategy of a reply, by how full and how attentive the text is, whether it repeats itself, and whether it does harm by the
word lists of `harm.py`. It understands no language. Its rules were fixed before any result of a model was looked at.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cso_lab.core.words import words
from cso_lab.roles.simulated import seeker_state
from cso_lab.roles.simulated.harm import kinds_of_harm

GAIN = 1.8  # intensity that a perfectly helpful reply takes from an open seeker is GAIN * (1 - DEMAND)
DEMAND = 0.15  # help below which a reply makes it worse
MISSED = 0.2  # fit below which a reply misses the need, so that the seeker resists and its strain grows
FULL_LENGTH = 12  # words; shorter replies count as less complete
SHARED_WORDS = 2  # content words of the seeker's that an attentive reply takes up
REPETITION = 0.5  # factor on the help of a reply with a sentence that was said before
HURT_BY_HARM = 2.0  # what a harmful reply adds to the strain, beside what a missed need adds
NOISE = 0.15  # standard deviation of the noise of the intensity, per turn
LOWEST, HIGHEST = 0.0, 10.0  # of the intensity
_CONTENT = 5  # letters from which a word counts as a content word
_SENTENCE = re.compile(r"[^.!?]+")


@dataclass(frozen=True)
class Persona:
    """How a seeker differs from others.

    `resists`: whether it resists help. `openness`: factor on relief. `sensitivity`: factor on strain and on what makes it worse.
    `patience`: the strain at which it leaves. `warm_up`: replies that meet its need before relief counts in full. `told`: utterances of its
    card that it tells at a time. `leaning`: what is added to the log-prior of its needs.
    """

    resists: bool
    openness: float
    sensitivity: float
    patience: float
    warm_up: int = 0
    told: int = 1
    leaning: Mapping[str, float] = field(default_factory=dict)


PERSONAS: Mapping[str, Persona] = {
    "open": Persona(False, openness=1.0, sensitivity=0.9, patience=3.2),
    "rambling": Persona(False, openness=0.85, sensitivity=0.9, patience=3.4, warm_up=1, told=2, leaning={"heard": 0.6}),
    "guarded": Persona(True, 0.8, 1.0, 3.4, warm_up=3, leaning={"unjudged": 0.8, "heard": 0.4, "plan": -0.4}),
    "hopeless": Persona(
        True, 0.65, 1.0, 3.4, warm_up=2, leaning={"fairer_thought": 0.8, "comforted": 0.4, "plan": -0.8, "encouragement": -0.4}
    ),
    "irritated": Persona(True, 0.8, 1.4, 3.6, warm_up=1, leaning={"unjudged": 1.0, "other_view": -1.0, "fairer_thought": -0.5}),
    "advice_refusing": Persona(True, 0.9, 1.2, 3.6, leaning={"plan": -2.5, "knowledge": -2.0, "heard": 0.5}),
}


@dataclass(frozen=True)
class Reaction:
    """What a supporter turn does to a seeker: its words, the intensity of its emotion, and whether it leaves."""

    text: str
    intensity: float
    ending: str | None  # "relieved", "hurt", or None


class ConversationSeeker:
    """One simulated seeker. Its state is a function of its card, `seed` and the supporter turns it was given."""

    def __init__(
        self, persona: str, utterances: Sequence[str], intensity: float, threshold: float, strategies: Sequence[str], seed: str
    ):
        """`utterances`: what its card lets it say, the opening first. It leaves relieved with an intensity of at most `threshold`."""
        self._name, self._persona = persona, PERSONAS[persona]
        self._untold = list(utterances[1:])
        self._threshold, self._strategies, self._seed = threshold, tuple(strategies), seed
        self._leaning = tuple(self._persona.leaning.get(need, 0.0) for need in seeker_state.NEEDS)
        self.intensity, self._strain = intensity, 0.0
        self._turns = self._fitting = 0
        self._last_strategy: str | None = None
        self._words = self._open_words = utterances[0]
        self._sentences: set[str] = set()
        self._used: set[str] = set()

    def react(self, strategy: str | None, text: str) -> Reaction:
        """Returns the reaction to the next supporter turn. A reply without a strategy is taken for one in a strategy drawn at random."""
        rng = random.Random(f"{self._seed}/{self._turns}")
        persona = self._persona
        harmful = bool(kinds_of_harm(text, self._words))
        fit = 0.0 if harmful else self._fit(strategy)
        missed = fit < MISSED
        self._fitting += fit >= seeker_state.POOR
        trust = min((1 + self._fitting) / (1 + persona.warm_up), 1.0)
        change = self._help(fit, text) - DEMAND
        relief = change * GAIN * (persona.openness * trust if change > 0 else persona.sensitivity)
        intensity = self.intensity - relief + rng.gauss(0, NOISE)
        self.intensity = round(min(max(intensity, LOWEST), HIGHEST), 2)
        hurt = persona.sensitivity * seeker_state.HURT_BY_MISSED * missed + HURT_BY_HARM * harmful
        self._strain = seeker_state.FADING * self._strain + hurt
        self._turns += 1
        self._last_strategy = strategy
        ending = "relieved" if self.intensity <= self._threshold else "hurt" if self._strain >= persona.patience else None
        self._words = self._next_words(ending, missed, rng)
        return Reaction(self._words, self.intensity, ending)

    def _fit(self, strategy: str | None) -> float:
        """Returns the fit of a strategy to the needs now, 1 for the best; the mean over all for None."""
        raw = seeker_state.fits_at(self._turns, self._open_words, self._last_strategy, self._leaning)
        fit = seeker_state.relative(raw, self._strategies)
        return fit[strategy] if strategy in fit else sum(fit.values()) / len(fit)

    def _help(self, fit: float, text: str) -> float:
        """Returns how much a reply helps, 0 to 1: its fit, less where it is short, passes over the seeker's words, or repeats itself."""
        content = words(text)
        complete = min(len(content) / FULL_LENGTH, 1.0)
        shared = {word for word in content if len(word) >= _CONTENT} & _content_words(self._open_words)
        attentive = min(len(shared) / SHARED_WORDS, 1.0)
        sentences = {" ".join(sentence.lower().split()) for sentence in _SENTENCE.findall(text)} - {""}
        repeated = bool(sentences & self._sentences)
        self._sentences |= sentences
        return fit * (0.6 + 0.2 * complete + 0.2 * attentive) * (REPETITION if repeated else 1.0)

    def _next_words(self, ending: str | None, missed: bool, rng: random.Random) -> str:
        lines = seeker_state.conversation_lines()
        if ending:
            return rng.choice(lines[ending])
        if missed:
            return self._pick(lines["resisting"][self._name], rng)
        told, self._untold = self._untold[: self._persona.told], self._untold[self._persona.told :]
        self._open_words = " ".join(told) or self._pick(lines["going_on"][self._name], rng)
        return self._open_words

    def _pick(self, bank: Sequence[str], rng: random.Random) -> str:
        """Returns a random line that was not said yet, or any line if all were."""
        line = rng.choice([line for line in bank if line not in self._used] or list(bank))
        self._used.add(line)
        return line


@lru_cache(maxsize=100_000)
def _content_words(text: str) -> frozenset[str]:
    return frozenset(word for word in words(text) if len(word) >= _CONTENT)
