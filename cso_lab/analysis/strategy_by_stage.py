"""Figures 3 and 9: the strategies that the supporter uses at each stage of the conversation (section 4.3)."""

from collections import Counter
from collections.abc import Iterable, Sequence

from cso_lab.core.records import SUPPORTER, Turn

STAGES = 6


def stage(k: int, n: int) -> int:
    """Returns the stage, 0 to 5, of the `k`-th of `n` utterances (k from 1): min(5, floor(6 k / n)). The paper prints it times 0.2.

    Without the minimum the last utterance would be at a seventh stage.
    """
    return min(STAGES - 1, STAGES * k // n)


def strategies_by_stage(dialogues: Iterable[Sequence[Turn]], names: Sequence[str]) -> dict:
    """Returns {stages: [0.0, ..., 1.0], turns: [labelled supporter turns at each stage], percent: {strategy: [percent of these]}}.

    k and n count all utterances, the seeker's too. The percentage is None at a stage without turns.
    """
    counts = [Counter() for _ in range(STAGES)]
    for turns in dialogues:
        for k, turn in enumerate(turns, start=1):
            if turn.speaker == SUPPORTER and turn.strategy:
                counts[stage(k, len(turns))][turn.strategy] += 1
    totals = [count.total() for count in counts]
    return {
        "stages": [round(index / (STAGES - 1), 1) for index in range(STAGES)],
        "turns": totals,
        "percent": {
            name: [100 * count[name] / total if total else None for count, total in zip(counts, totals, strict=True)]
            for name in names
        },
    }
