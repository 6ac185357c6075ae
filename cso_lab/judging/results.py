"""Counts answers: how often each side wins or how replies are scored, with intervals, agreement of the judges, lengths and order bias.

Pure functions of a sample and its answers. A win, loss or tie is meant for the first side of an item.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np

from cso_lab.core.records import SUPPORTER
from cso_lab.core.words import count_words
from cso_lab.evaluation.score import INTERVAL, RESAMPLES
from cso_lab.judging.items import BOTH, DISPREFERRED, PAIRWISE, PREFERRED, Answer, Item, Sample
from cso_lab.judging.prompts import PARTS, TIE, A, asked_criteria

WIN, LOSE = "win", "lose"
OUTCOMES = (WIN, LOSE, TIE)
Verdicts = Mapping[str, Mapping[str, Hashable]]
"""{judge: {item id: category}}."""


def panel_results(sample: Sample, answers: Sequence[Answer], judges: Sequence[str], orders: int, **more: object) -> dict:
    """Returns one panel of judging.json: the numbers of Tables 1 and 3 or of conversations (pairs), or of Table 6.

    `orders` is in how many orders each pair was shown, 1 or 2. `more` is added to the panel as it is.
    """
    results = _comparison(sample, answers, orders) if sample.kind in PAIRWISE else _rating(sample, answers)
    return {"kind": sample.kind, "judges": list(judges), **results, **more}


def verdicts(answers: Iterable[Answer], criterion: str, orders: int) -> tuple[dict[str, dict[str, str]], int]:
    """Returns ({judge: {item id: "win", "lose" or "tie"}}, number of contradictions among them).

    A judge that was shown a pair in both orders and did not answer the same has contradicted itself, which is a tie. There is no
    verdict where one of the orders has no answer.
    """
    outcomes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for answer in answers:
        outcomes[answer.judge, answer.item].append(outcome(answer, criterion))
    by_judge: dict[str, dict[str, str]] = defaultdict(dict)
    contradictions = 0
    for (judge, item), of_item in outcomes.items():
        if len(of_item) == orders:
            contradictions += len(set(of_item)) > 1
            by_judge[judge][item] = of_item[0] if len(set(of_item)) == 1 else TIE
    return dict(by_judge), contradictions


def outcome(answer: Answer, criterion: str) -> str:
    """Returns "win", "lose" or "tie": what a single answer means for the item's first side."""
    value = answer.values[criterion]
    return TIE if value == TIE else WIN if (value == A) == (answer.first == 0) else LOSE


def order_bias(answers: Iterable[Answer]) -> dict[str, float | None]:
    """Returns {judge or "all": percent of the answers other than ties, over all criteria, that are for the side shown first}.

    50 is no bias; None if every answer is a tie.
    """
    answers = list(answers)
    decisive = {"all": [value for answer in answers for value in answer.values.values() if value != TIE]}
    for judge in dict.fromkeys(answer.judge for answer in answers):
        decisive[judge] = [v for answer in answers if answer.judge == judge for v in answer.values.values() if v != TIE]
    return {name: 100 * fmean(value == A for value in values) if values else None for name, values in decisive.items()}


def _comparison(sample: Sample, answers: Sequence[Answer], orders: int) -> dict:
    rows, judged, contradictions, all_verdicts = {}, set(), 0, 0
    longer_wins = []
    words = {item.id: _supporter_words(item) for item in sample.items}
    for criterion in sample.criteria:
        by_judge, contradicted = verdicts(answers, criterion, orders)
        contradictions += contradicted
        all_verdicts += sum(map(len, by_judge.values()))
        items = [item.id for item in sample.items if _judged(by_judge, item.id)]
        judged |= set(items)
        # The share of an item's judges; where each judged every item, the mean is the share of all verdicts, as in the paper.
        shares = {o: [fmean(v[i] == o for v in by_judge.values() if i in v) for i in items] for o in OUTCOMES}
        rows[criterion] = {
            **{o: 100 * fmean(shares[o]) if items else None for o in OUTCOMES},
            "intervals": {o: bounds and [100 * b for b in bounds] for o in OUTCOMES if (bounds := _bounds(shares[o], sample))},
            **_agreement(by_judge),
        }
        for by_item in by_judge.values():
            for item, verdict in by_item.items():
                first, second = words[item]
                if verdict != TIE and first != second:
                    longer_wins.append((verdict == WIN) == (first > second))
    lengths_of_judged = [words[item] for item in words if item in judged]
    return {
        "sides": list(sample.sides),
        "rows": rows,
        "n": len(judged),
        "length": {
            "words": [fmean(lengths) for lengths in zip(*lengths_of_judged, strict=True)],
            "longer_wins": 100 * fmean(longer_wins) if longer_wins else None,
        },
        "order": order_bias(answers),
        "contradictions": 100 * contradictions / all_verdicts if orders > 1 and all_verdicts else None,
    }


def _rating(sample: Sample, answers: Sequence[Answer]) -> dict:
    scores: dict[str, dict[str, dict[str, float]]] = {criterion: defaultdict(dict) for criterion in sample.criteria}
    computed = set(sample.criteria) - set(asked_criteria(sample.kind, sample.criteria))
    for answer in answers:
        for criterion in sample.criteria:
            values = [answer.values[part] for part in PARTS] if criterion in computed else [answer.values[criterion]]
            scores[criterion][answer.judge][answer.item] = fmean(values)
    members = {group: [item for item in sample.items if item.group in _parts(group)] for group in sample.groups}
    rows = {}
    for criterion, by_judge in scores.items():
        means = {
            group: [
                fmean(v[item.id] for v in by_judge.values() if item.id in v) for item in items if _judged(by_judge, item.id)
            ]
            for group, items in members.items()
        }
        rows[criterion] = {
            "means": {group: fmean(values) if values else None for group, values in means.items()},
            "intervals": {group: bounds for group, values in means.items() if (bounds := _bounds(values, sample))},
            **_agreement(by_judge),
        }
    judged = {answer.item for answer in answers}
    words = {g: [_supporter_words(i)[0] for i in items if i.id in judged] for g, items in members.items()}
    return {
        "groups": list(sample.groups),
        "rows": rows,
        "n": {group: len(values) for group, values in words.items()},
        "length": {"words": {group: fmean(values) if values else None for group, values in words.items()}},
        "order": {},
    }


def _supporter_words(item: Item) -> list[int]:
    """Returns the number of words that the supporter says on each side."""
    return [sum(count_words(turn.text) for turn in side if turn.speaker == SUPPORTER) for side in item.sides]


def _parts(group: str) -> tuple[str, ...]:
    return (PREFERRED, DISPREFERRED) if group == BOTH else (group,)


def _judged(verdicts: Verdicts, item: str) -> bool:
    return any(item in by_item for by_item in verdicts.values())


def _agreement(verdicts: Verdicts) -> dict[str, float | None]:
    return {"cohen": cohen_kappa(verdicts), "fleiss": fleiss_kappa(verdicts)}


def _bounds(values: Sequence[float], sample: Sample) -> list[float] | None:
    return bootstrap_interval(values, sample.seed)


def cohen_kappa(verdicts: Verdicts) -> float | None:
    """Returns the mean over pairs of judges of Cohen's kappa, (p_o - p_e) / (1 - p_e), on the items both have judged.

    p_o is the observed agreement, p_e that expected by chance. None with fewer than two judges, and where every verdict is the
    same, which leaves kappa undefined.
    """
    from sklearn.metrics import cohen_kappa_score

    kappas = []
    for one, other in combinations(verdicts.values(), 2):
        items = [item for item in one if item in other]
        labels = sorted({str(judged[item]) for judged in (one, other) for item in items})
        if len(labels) > 1:
            kappas.append(cohen_kappa_score([str(one[i]) for i in items], [str(other[i]) for i in items], labels=labels))
    return float(np.mean(kappas)) if kappas else None


def fleiss_kappa(verdicts: Verdicts) -> float | None:
    """Returns Fleiss' kappa, (P - P_e) / (1 - P_e), on the items that all n judges have judged.

    P is the mean over items i of the share of agreeing pairs of judges, sum_j n_ij (n_ij - 1) / (n (n - 1)), and P_e the sum of
    squares of the shares of the categories j. None with fewer than two judges, and where every verdict is the same.
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


def bootstrap_interval(values: Sequence[float], seed: int) -> list[float] | None:
    """Returns [low, high], the 95% bootstrap interval of the mean of `values` (one value per item); None without values."""
    if not values:
        return None
    values = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    return np.percentile(values[drawn].mean(axis=1), INTERVAL).tolist()
