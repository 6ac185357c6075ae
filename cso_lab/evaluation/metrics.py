"""The paper's four metrics as pure functions (section 5.1): Q and Q_W, B (Kang et al., 2024) and R-L (Lin, 2004).

A prediction of None is a reply that names no known strategy.
"""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from cso_lab.core.words import words

PERCENT = 100.0
SWEEPS = 20
_UNPARSED = ""


def confusion(gold: Sequence[str], predicted: Sequence[str | None], names: Sequence[str]) -> np.ndarray:
    """Returns the counts of (gold, predicted), shape (K, K + 1) in the order of `names`; the last column counts unparsed replies."""
    position = {name: k for k, name in enumerate(names)}
    counts = np.zeros((len(names), len(names) + 1), dtype=int)
    columns = [len(names) if p is None else position[p] for p in predicted]
    np.add.at(counts, ([position[g] for g in gold], columns), 1)
    return counts


def strategy_scores(gold: Sequence[str], predicted: Sequence[str | None], names: Sequence[str]) -> dict:
    """Returns {Q, Q_W, strategies: {name: {precision, recall, f1, support}}} in percent; `support` is a count.

    F1_i = 2 TP_i / (2 TP_i + FP_i + FN_i),  Q = mean of F1_i over i in C,  Q_W = sum of n_i F1_i / sum of n_i

    with n_i the number of gold turns of strategy i. C has the strategies that occur in the gold or in the predicted labels,
    as in the script of Kang et al., which does not set `labels` of scikit-learn's `f1_score` (and which only prints its
    result if all occur): a strategy that never occurs is left out, one that is only predicted counts with F1 = 0.
    None counts as a miss of its gold strategy, as a false positive of no strategy, and is no class of C. 0/0 is 0.
    """
    from sklearn.metrics import precision_recall_fscore_support

    parsed = [name or _UNPARSED for name in predicted]
    precision, recall, f1, support = precision_recall_fscore_support(
        list(gold), parsed, labels=list(names), average=None, zero_division=0.0
    )
    occurs = _occurring(confusion(gold, predicted, names))
    return {
        "Q": PERCENT * float(np.mean(f1[occurs])),
        "Q_W": PERCENT * float(np.average(f1, weights=support)),
        "strategies": {
            name: {
                "precision": PERCENT * float(precision[k]),
                "recall": PERCENT * float(recall[k]),
                "f1": PERCENT * float(f1[k]),
                "support": int(support[k]),
            }
            for k, name in enumerate(names)
        },
    }


def batched_f1(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (Q, Q_W) in percent, each of shape (...), for `confusion` tables of shape (..., K, K + 1).

    These are the equations of `strategy_scores` for the thousand tables of a bootstrap; scikit-learn takes one table a call.
    """
    parsed = counts[..., :-1]
    hits = np.diagonal(parsed, axis1=-2, axis2=-1)
    support = counts.sum(-1)
    f1 = _ratio(2.0 * hits, support + parsed.sum(-2))
    q = _ratio(f1.sum(-1), _occurring(counts).sum(-1))
    return PERCENT * q, PERCENT * _ratio((support * f1).sum(-1), support.sum(-1))


def preference(confusion: np.ndarray) -> np.ndarray:
    """Returns a model's Bradley-Terry preferences p for the strategies, shape (..., K), which sum to K.

    `confusion` has shape (..., K, K): gold by predicted counts of parsed replies. w_ij is the number of times i was predicted
    where j was gold. From p = 1, 20 sweeps over i = 1..K update in place (Kang et al., 2024, preference bias)

        p_i = sum_{j != i} w_ij p_j / (p_i + p_j)  /  sum_{j != i} w_ji / (p_i + p_j)

    Scaling p scales the update, so p is scaled to the sum K after each sweep instead of to geometric mean 1 as in their script.
    If this divides by zero, the value is the limit:
    - a strategy that is predicted wrongly but never missed has an unbounded p: its p is K and all others are 0; several such
      strategies divide K in proportion to their wrong predictions;
    - a strategy that is missed but never predicted wrongly has p = 0; a pair of which both are 0 adds nothing;
    - a strategy that is never confused has p = 1, and the others sum to the rest; if no strategy is, p = 1 for all.
    """
    size = confusion.shape[-1]
    wrong = np.where(np.eye(size, dtype=bool), 0.0, confusion)
    won, lost = wrong.sum(-2), wrong.sum(-1)
    neutral = (won == 0) & (lost == 0)
    unbounded = (won > 0) & (lost == 0)
    mass = size - neutral.sum(-1, keepdims=True)
    p = (~neutral).astype(float)
    for _ in range(SWEEPS):
        for i in range(size):
            pair = p[..., i, None] + p
            wins = (wrong[..., :, i] * _ratio(p, pair)).sum(-1)
            losses = _ratio(wrong[..., i, :], pair).sum(-1)
            p[..., i] = np.where(losses > 0, _ratio(wins, losses), p[..., i])
        p = mass * _ratio(p, p.sum(-1, keepdims=True))
    collapsed = won * unbounded
    limit = size * _ratio(collapsed, collapsed.sum(-1, keepdims=True))
    return np.where(unbounded.any(-1, keepdims=True), limit, p + neutral)


def preference_bias(p: np.ndarray) -> np.ndarray:
    """Returns B, shape (...): the population standard deviation of preferences p, shape (..., K).

    B = sqrt(1/K sum_i (p_i - mean p)^2): 0 without any preference, sqrt(K - 1) if one strategy has all of it.
    """
    return np.std(p, axis=-1)


def rouge_l_scores(gold: Sequence[str], predicted: Sequence[str]) -> np.ndarray:
    """Returns ROUGE-L of each reply in percent, shape (n,).

    F = 2PR / (P + R), where P and R are the length of the longest common subsequence of words over the length of the predicted and of
    the gold text (Lin, 2004); lower-cased, not stemmed. On English text it equals the package rouge_score with its own tokenizer, which
    finds no words in other scripts.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=words))
    scores = (scorer.score(g, p)["rougeL"].fmeasure for g, p in zip(gold, predicted, strict=True))
    return PERCENT * np.fromiter(scores, dtype=float)


def rouge_l(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Returns R-L in percent: the mean of `rouge_l_scores` over replies without their strategy label."""
    return float(np.mean(rouge_l_scores(gold, predicted)))


def _occurring(counts: np.ndarray) -> np.ndarray:
    """Returns whether each strategy occurs in the gold or the predicted labels, shape (..., K)."""
    return (counts.sum(-1) > 0) | (counts[..., :-1].sum(-2) > 0)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns numerator / denominator, and 0 where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, dtype=float), denominator)
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)
