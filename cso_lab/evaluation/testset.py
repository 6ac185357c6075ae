"""The strategy test set: the supporter turns of the test dialogues that Q, Q_W and B are computed on (section 5.1; Kang et al., 2024)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_jsonl
from cso_lab.core.records import Dialogue, Prediction, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.evaluation.score import evaluate_predictions

FILE = "contexts.jsonl"
FEWEST_CUTS = 2
"""A dialogue with fewer suitable turns is left out of the set."""


@dataclass(frozen=True)
class Context:
    """A supporter turn of a dialogue (a cut point) and the utterances before it."""

    dialogue: str
    turn: int
    history: tuple[Turn, ...]
    gold_strategy: str
    gold_response: str


def draw_contexts(dialogues: Sequence[Dialogue], shortest: int, longest: int, cuts: int, seed: int) -> list[Context]:
    """Returns at most `cuts` random labelled supporter turns of each dialogue, of those after `shortest` to `longest` utterances.

    The turns drawn from a dialogue depend on the seed and its id only. A dialogue with fewer than two suitable turns is left out.
    Raises UserError if all are.
    """
    contexts = []
    for dialogue in dialogues:
        suitable = [i for i in dialogue.supporter_turns() if dialogue.turns[i].strategy and shortest <= i <= longest]
        if len(suitable) < FEWEST_CUTS:
            continue
        sample = random.Random(f"{seed}/{dialogue.id}").sample(suitable, min(cuts, len(suitable)))
        for i in sorted(sample):
            gold = dialogue.turns[i]
            contexts.append(Context(dialogue.id, i, dialogue.turns[:i], gold.strategy, gold.text))
    if not contexts:
        raise UserError(
            f"evaluation.testset=strategy: none of {len(dialogues)} test dialogues has {FEWEST_CUTS} supporter turns that follow"
            f" {shortest} to {longest} utterances: give evaluation.testset=turns, or other bounds"
        )
    return contexts


def evaluate_on_contexts(
    predictions: Sequence[Prediction], contexts: Path, strategies: StrategySet, complete: bool = True
) -> dict:
    """Returns the scores of `evaluate_predictions`, with R-L of all turns and the others of the turns in the file `contexts`.

    `n` is the number of contexts, `turns` the number of turns of R-L; `counted` in `per_turn` tells which turns are contexts.
    Raises UserError if predictions of contexts are missing, or, unless they must be `complete`, if all are.
    """
    by_turn = {(prediction.dialogue, prediction.turn): prediction for prediction in predictions}
    turns = [(row["dialogue"], row["turn"]) for row in read_jsonl(contexts)]
    on_contexts = [by_turn[turn] for turn in turns if turn in by_turn]
    if not on_contexts or (complete and len(on_contexts) < len(turns)):
        raise UserError(
            f"{len(turns) - len(on_contexts)} of {len(turns)} turns of {contexts} have no prediction: generate them first"
        )
    scores = evaluate_predictions(on_contexts, strategies)
    all_scores = evaluate_predictions(predictions, strategies, per_turn=True)
    scores["R-L"], scores["intervals"]["R-L"] = all_scores["R-L"], all_scores["intervals"]["R-L"]
    context_turns = set(turns)
    counted = [(prediction.dialogue, prediction.turn) in context_turns for prediction in predictions]
    return scores | {"turns": all_scores["n"], "per_turn": all_scores["per_turn"] | {"counted": counted}}
