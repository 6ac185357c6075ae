"""Reads a file of predictions and computes its scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cso_lab.core.errors import UserError, unknown
from cso_lab.core.files import read_jsonl
from cso_lab.core.records import Prediction
from cso_lab.core.strategies import StrategySet, parse_reply
from cso_lab.evaluation.metrics import batched_f1, confusion, preference, preference_bias, rouge_l_scores, strategy_scores
from cso_lab.llm.reasoning import strip_reasoning

RESAMPLES = 1000
INTERVAL = (2.5, 97.5)


def evaluate_predictions(
    predictions: Sequence[Prediction], strategies: StrategySet, seed: int = 0, per_turn: bool = False
) -> dict:
    """Returns {Q, B, Q_W, R-L, n, unparsed, intervals: {metric: [low, high]}, strategies: {name: {precision, recall, f1, support,
    predicted, preference}}}, and `cut`, the number of replies that ended at the limit of tokens, if there are any.

    Values are in percent, except B, `preference` and the counts. See `metrics` for the equations. Case does not matter in labels; a
    predicted label outside the set is unparsed. `intervals` are 95% bootstrap intervals over turns, without which a difference in B means
    little, since B saturates on small test sets. `per_turn` adds the columns of `turn_columns`, by which runs are compared.
    Raises UserError if there are no predictions or a gold strategy is not in the set.
    """
    if not predictions:
        raise UserError("no predictions to score: expected at least one")
    names = strategies.names
    gold = [gold_strategy(p.gold_strategy, strategies, f"line {n}") for n, p in enumerate(predictions, start=1)]
    predicted = [None if p.strategy is None else strategies.find(p.strategy) for p in predictions]
    rouge = rouge_l_scores(
        [parse_reply(p.gold_response, strategies)[1] for p in predictions],
        [parse_reply(p.response, strategies)[1] for p in predictions],
    )
    scores = strategy_scores(gold, predicted, names)
    counts = confusion(gold, predicted, names)
    preferences = preference(counts[:, :-1])
    return {
        "Q": scores["Q"],
        "B": float(preference_bias(preferences)),
        "Q_W": scores["Q_W"],
        "R-L": float(np.mean(rouge)),
        "n": len(predictions),
        "unparsed": int(counts[:, -1].sum()),
        **({"cut": cut} if (cut := sum(p.cut for p in predictions)) else {}),
        "intervals": bootstrap_intervals(counts, rouge, seed),
        "strategies": {
            name: {**scores["strategies"][name], "predicted": int(counts[:, k].sum()), "preference": float(preferences[k])}
            for k, name in enumerate(names)
        },
        **({"per_turn": turn_columns(predictions, gold, predicted, rouge, names)} if per_turn else {}),
    }


def turn_columns(
    predictions: Sequence[Prediction],
    gold: Sequence[str],
    predicted: Sequence[str | None],
    rouge: np.ndarray,
    names: Sequence[str],
) -> dict[str, list]:
    """Returns {column: its value at each test turn}.

    `dialogue` and `turn` identify the turn, `gold` and `predicted` are indices in `names` (None if unparsed), `R-L` is in percent.
    """
    index = {name: i for i, name in enumerate(names)}
    return {
        "dialogue": [p.dialogue for p in predictions],
        "turn": [p.turn for p in predictions],
        "gold": [index[name] for name in gold],
        "predicted": [None if name is None else index[name] for name in predicted],
        "R-L": [round(float(score), 2) for score in rouge],
    }


def bootstrap_intervals(counts: np.ndarray, rouge: np.ndarray, seed: int) -> dict[str, list[float]]:
    """Returns {metric: [low, high]}: 95% percentile intervals over turns drawn with replacement.

    `counts` is a `confusion` table of n turns, shape (K, K + 1), `rouge` their R-L, shape (n,). Drawing turns is drawing cells
    of the table, so that tables are drawn from a multinomial distribution.
    """
    rng = np.random.default_rng(seed)
    n = len(rouge)
    tables = rng.multinomial(n, counts.ravel() / n, size=RESAMPLES).reshape(RESAMPLES, *counts.shape)
    q, q_w = batched_f1(tables)
    resampled = {
        "Q": q,
        "B": preference_bias(preference(tables[..., :-1])),
        "Q_W": q_w,
        "R-L": [rng.choice(rouge, size=n).mean() for _ in range(RESAMPLES)],
    }
    return {metric: np.percentile(values, INTERVAL).tolist() for metric, values in resampled.items()}


def gold_strategy(label: str, strategies: StrategySet, location: str) -> str:
    """Returns the strategy of a gold label. Raises UserError, which names its `location` and the valid strategies, if there is none."""
    strategy = strategies.find(label)
    if strategy is None:
        raise UserError(f"{location}: {unknown(f'gold_strategy (strategy set {strategies.name})', label, strategies.names)}")
    return strategy


def load_predictions(path: Path, strategies: StrategySet) -> list[Prediction]:
    """Returns the predictions of a JSON Lines file.

    A line has `gold_strategy`, `gold_response`, `strategy` (null if unparsed) and `response`; `raw`, `dialogue` and `turn` are optional.
    Without `strategy`, strategy and response are parsed from `raw`. Raises UserError, with file and line, if a field is missing or has
    the wrong type, or if a gold strategy is not in the set.
    """
    rows = read_jsonl(path)
    with Path(path).open(encoding="utf-8-sig") as file:
        numbers = [number for number, line in enumerate(file, start=1) if line.strip()]
    return [_prediction(row, strategies, f"{path}:{number}") for number, row in zip(numbers, rows, strict=True)]


def _prediction(row: dict, strategies: StrategySet, location: str) -> Prediction:
    raw = _text(row, "raw", location) if row.get("raw") is not None else None
    if "strategy" not in row and raw is not None:
        strategy, text = parse_reply(strip_reasoning(raw), strategies)
        row = {"response": text, **row, "strategy": strategy}
    expected = "a string, or null for an unparsed reply"
    strategy = None if row.get("strategy", "") is None else _text(row, "strategy", location, expected)
    response = _text(row, "response", location)
    return Prediction(
        dialogue=str(row.get("dialogue", "")),
        turn=row.get("turn", 0),
        gold_strategy=gold_strategy(_text(row, "gold_strategy", location), strategies, location),
        gold_response=_text(row, "gold_response", location),
        strategy=strategy,
        response=response,
        raw=response if raw is None else raw,
        cut=row.get("cut") is True,
    )


def _text(row: dict, name: str, location: str, expected: str = "a string") -> str:
    if name not in row:
        raise UserError(f"{location}: missing field {name!r}: expected {expected}")
    if not isinstance(row[name], str):
        raise UserError(f"{location}: field {name!r} is {type(row[name]).__name__}: expected {expected}")
    return row[name]
