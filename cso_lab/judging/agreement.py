"""How far judges agree, and how sure a mean over items is. Pure functions."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

import numpy as np

from cso_lab.evaluation.score import INTERVAL, RESAMPLES

Verdicts = Mapping[str, Mapping[str, Hashable]]
"""{judge: {item: category}}."""


def cohen(verdicts: Verdicts) -> float | None:
    """The mean over pairs of judges of Cohen's kappa, (p_o - p_e) / (1 - p_e), on the items both have judged.

    None with fewer than two judges, or where it is undefined: every verdict the same.
    """
    from sklearn.metrics import cohen_kappa_score

    kappas = []
    for one, other in combinations(verdicts.values(), 2):
        items = [item for item in one if item in other]
        labels = sorted({str(judged[item]) for judged in (one, other) for item in items})
        if len(labels) > 1:
            kappas.append(cohen_kappa_score([str(one[i]) for i in items], [str(other[i]) for i in items], labels=labels))
    return float(np.mean(kappas)) if kappas else None


def fleiss(verdicts: Verdicts) -> float | None:
    """Fleiss' kappa, (P - P_e) / (1 - P_e), on the items all n judges have judged.

    P: mean over items of the share of agreeing pairs of judges, sum_j n_ij (n_ij - 1) / (n (n - 1)); P_e: the sum of squares of the
    categories' shares. None with fewer than two judges, or where it is undefined.
    """
    judges = list(verdicts.values())
    if len(judges) < 2:
        return None
    items = [item for item in judges[0] if all(item in judged for judged in judges[1:])]
    categories = sorted({str(judged[item]) for judged in judges for item in items})
    if len(categories) < 2:
        return None
    counts = np.array([[sum(str(judged[i]) == category for judged in judges) for category in categories] for i in items])
    n = len(judges)
    observed = (counts * (counts - 1)).sum(axis=1).mean() / (n * (n - 1))
    by_chance = ((counts.sum(axis=0) / counts.sum()) ** 2).sum()
    return float((observed - by_chance) / (1 - by_chance))


def interval(values: Sequence[float], seed: int) -> list[float] | None:
    """[low, high]: the middle 95% of the mean over items drawn with replacement. `values`: one an item."""
    if not values:
        return None
    values = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    return np.percentile(values[drawn].mean(axis=1), INTERVAL).tolist()
