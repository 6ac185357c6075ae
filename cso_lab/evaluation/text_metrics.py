"""Text metrics of the field beside R-L: BLEU, chrF, distinct-n, length and BERTScore of replies without their strategy label."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from cso_lab.core.errors import UserError
from cso_lab.core.words import words
from cso_lab.evaluation.metrics import PERCENT

BLEU_ORDERS = (1, 2, 3, 4)
BERTSCORE = "BERTScore"


def text_scores(
    metrics: Sequence[str],
    gold: Sequence[str],
    predicted: Sequence[str],
    bertscore_model: str | None = None,
    layers: int | None = None,
) -> dict[str, float]:
    """Returns {name: value} of the chosen `metrics` over n replies; percent, but for the mean length in words.

    `metrics`: names in METRICS or "bertscore", which needs `bertscore_model` (a local folder or an id in the hub's cache) and the layer
    whose states are compared. An empty reply counts: its BLEU statistics, its length and its BERTScore are 0.
    """
    scores = {}
    for metric in metrics:
        if metric == "bertscore":
            scores[BERTSCORE] = bertscore(gold, predicted, bertscore_model, layers)
        else:
            scores |= METRICS[metric](gold, predicted)
    return scores


def bleu(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Returns {BLEU-1 .. BLEU-4} of the corpus in percent (Papineni et al., 2002), by sacrebleu, with exponential smoothing.

    Tokens are `words`: lower case, no punctuation, and each character of a script without spaces on its own.
    """
    from sacrebleu.metrics import BLEU

    replies, references = _tokenized(predicted), _tokenized(gold)
    return {
        f"BLEU-{order}": BLEU(max_ngram_order=order, tokenize="none", force=True).corpus_score(replies, [references]).score
        for order in BLEU_ORDERS
    }


def chrf(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Returns {chrF} of the corpus in percent (Popovic, 2015): character n-grams up to 6, beta 2, by sacrebleu."""
    from sacrebleu.metrics import CHRF

    return {"chrF": CHRF().corpus_score(list(predicted), [list(gold)]).score}


def distinct(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Returns {distinct-1, distinct-2} in percent (Li et al., 2016): different n-grams of words over all n-grams of all replies.

    It falls with the number of replies, so compare it on the same test turns only.
    """
    return {f"distinct-{n}": share or 0.0 for n, share in enumerate(distinct_shares(predicted), start=1)}


def distinct_shares(texts: Iterable[str]) -> list[float | None]:
    """Returns distinct-1 and distinct-2 of all texts together, in percent; None where there is no such n-gram."""
    tokens = [words(text) for text in texts]
    unigrams = [word for text in tokens for word in text]
    bigrams = [pair for text in tokens for pair in pairwise(text)]
    return [PERCENT * len(set(ngrams)) / len(ngrams) if ngrams else None for ngrams in (unigrams, bigrams)]


def length(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Returns {words}: the mean number of words of a reply (`words`)."""
    return {"words": float(np.mean([len(words(text)) for text in predicted]))}


def bertscore(gold: Sequence[str], predicted: Sequence[str], model: str | None, layers: int | None) -> float:
    """Returns the mean BERTScore F1 in percent (Zhang et al., 2020), not rescaled; a reply or gold text without words has 0.

    Raises UserError if the package bert-score is missing or `model` cannot be loaded; nothing is downloaded.
    """
    score = check_bertscore(model, layers)
    filled = [(reply, text) for reply, text in zip(predicted, gold, strict=True) if reply.strip() and text.strip()]
    if not filled:
        return 0.0
    replies, references = map(list, zip(*filled, strict=True))
    try:
        _, _, f1 = score(replies, references, model_type=model, num_layers=layers)
    except (OSError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"evaluation.bertscore.model={model} cannot be used by bert-score: {reason}") from None
    return PERCENT * float(f1.sum()) / len(predicted)


def check_bertscore(model: str | None, layers: int | None) -> Callable:
    """Returns bert-score's function. Raises UserError if the package, the model's name or the layer is missing."""
    if not model or not layers:
        raise UserError(
            "evaluation.text holds bertscore, which needs evaluation.bertscore.model (a folder, or an id in the model hub's cache) and "
            "evaluation.bertscore.layers (17 for roberta-large)"
        )
    try:
        from bert_score import score
    except ImportError:
        raise UserError(
            "evaluation.text holds bertscore, which needs the package bert-score: pip install '.[bertscore]'"
        ) from None
    return score


def _tokenized(texts: Sequence[str]) -> list[str]:
    return [" ".join(words(text)) for text in texts]


METRICS: dict[str, Callable[[Sequence[str], Sequence[str]], dict[str, float]]] = {
    "bleu": bleu,
    "chrf": chrf,
    "distinct": distinct,
    "length": length,
}
"""The metrics by their name in `evaluation.text`, each a function of the gold and the predicted texts; "bertscore" is the fifth."""
