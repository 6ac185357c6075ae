"""Figures 3 and 9: which strategies the supporter uses at which stage of the conversation (section 4.3)."""

from collections import Counter
from collections.abc import Iterable, Sequence

from cso_lab.core.records import SUPPORTER, Turn

STAGES = 6


def stage(k: int, n: int) -> int:
    """The stage, 0 to 5, of the `k`-th of `n` utterances (k from 1): min(5, floor(6 k / n)). The paper prints it times 0.2.

    Without the bound the last utterance would have a seventh stage of its own.
    """
    return min(STAGES - 1, STAGES * k // n)


def strategy_progress(dialogues: Iterable[Sequence[Turn]], names: Sequence[str]) -> dict:
    """{stages: [0.0, ..., 1.0], turns: [labelled supporter turns of each stage], percent: {strategy: [its share of these]}}.

    All utterances count in k and n, the seeker's too. A stage without any turn has None.
    """
    counts = [Counter() for _ in range(STAGES)]
    for turns in dialogues:
        for k, turn in enumerate(turns, start=1):
            if turn.speaker == SUPPORTER and turn.strategy:
                counts[stage(k, len(turns))][turn.strategy] += 1
    totals = [count.total() for count in counts]
    return {
        "stages": [round(place / (STAGES - 1), 1) for place in range(STAGES)],
        "turns": totals,
        "percent": {
            name: [100 * count[name] / total if total else None for count, total in zip(counts, totals, strict=True)]
            for name in names
        },
    }
