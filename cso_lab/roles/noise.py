"""Noise that is added to the scores of a judge, to see what they are worth."""

import random

from cso_lab.core.records import Scores
from cso_lab.roles.parsing import QUALITY


def add_noise(scores: Scores, noise: float, rng: random.Random) -> Scores:
    """Returns the scores with normal noise of this standard deviation in points, rounded and within the scale."""
    low, high = QUALITY
    return {name: min(max(round(score + rng.gauss(0, noise)), low), high) for name, score in scores.items()}
