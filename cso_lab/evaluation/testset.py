"""The strategy test set: which supporter turns of the test dialogues Q, Q_W and B are taken from (section 5.1, after Kang et al., 2024)."""

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
"""Of a dialogue: the set holds several cut points of each, or none."""


@dataclass(frozen=True)
class Context:
    """A cut point: the utterances before a supporter turn, and that turn."""

    dialogue: str
    turn: int
    history: tuple[Turn, ...]
    gold_strategy: str
    gold_response: str


def draw_contexts(dialogues: Sequence[Dialogue], shortest: int, longest: int, cuts: int, seed: int) -> list[Context]:
    """At most `cuts` labelled supporter turns of each dialogue, among those that follow `shortest` to `longest` utterances.

    What is drawn from a dialogue depends on the seed and its id alone. A dialogue with fewer than two such turns gives none; a
    UserError when none is left.
    """
    contexts = []
    for dialogue in dialogues:
        fitting = [i for i in dialogue.supporter_turns() if dialogue.turns[i].strategy and shortest <= i <= longest]
        if len(fitting) < FEWEST_CUTS:
            continue
        drawn = random.Random(f"{seed}/{dialogue.id}").sample(fitting, min(cuts, len(fitting)))
        for i in sorted(drawn):
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
    """As `evaluate_predictions`, but everything except R-L from the turns that the file `contexts` names; R-L from all.

    `n` counts those contexts, `turns` the turns behind R-L; `per_turn` says of every turn whether it is one of the contexts.
    A UserError when predictions of contexts are missing; if they need not be `complete`, only when all are.
    """
    by_turn = {(prediction.dialogue, prediction.turn): prediction for prediction in predictions}
    wanted = [(row["dialogue"], row["turn"]) for row in read_jsonl(contexts)]
    found = [by_turn[turn] for turn in wanted if turn in by_turn]
    if not found or (complete and len(found) < len(wanted)):
        raise UserError(
            f"{len(wanted) - len(found)} of {len(wanted)} turns of {contexts} have no prediction: generate them first"
        )
    scores, of_all = evaluate_predictions(found, strategies), evaluate_predictions(predictions, strategies, per_turn=True)
    scores["R-L"], scores["intervals"]["R-L"] = of_all["R-L"], of_all["intervals"]["R-L"]
    drawn = set(wanted)
    counted = [(prediction.dialogue, prediction.turn) in drawn for prediction in predictions]
    return scores | {"turns": of_all["n"], "per_turn": of_all["per_turn"] | {"counted": counted}}
