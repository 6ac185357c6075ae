"""Paths of choices as training rows: distinct pairs, their KTO halves, and the preferred turns for SFT. Chat messages throughout."""

from collections.abc import Iterable, Sequence

from cso_lab.core.records import SUPPORTER, Turn, prompt_messages, supporter_message
from cso_lab.core.strategies import StrategySet
from cso_lab.preferences.escpro import Path


def pair_rows(paths: Sequence[Path], strategies: StrategySet) -> list[dict]:
    """{prompt, chosen, rejected} and where each pair comes from. A pair that several paths share is one row."""
    rows = {}
    for pair in (pair for path in paths for choice in path.choices for pair in choice.pairs()):
        rows.setdefault(
            (pair.history, pair.chosen, pair.rejected),
            {
                "prompt": prompt_messages(pair.history, strategies),
                "chosen": [supporter_message(pair.chosen)],
                "rejected": [supporter_message(pair.rejected)],
                "dialogue": pair.dialogue,
                "chosen_strategy": pair.chosen.strategy,
                "rejected_strategy": pair.rejected.strategy,
                "q_chosen": pair.q_chosen,
                "q_rejected": pair.q_rejected,
            },
        )
    return list(rows.values())


def sft_rows(paths: Sequence[Path], strategies: StrategySet) -> list[dict]:
    """{prompt, completion}: every preferred turn once (ESC-Pro-SFT)."""
    rows = {}
    for choice in (choice for path in paths for choice in path.choices):
        turn = Turn(SUPPORTER, choice.preferred.supporter, choice.preferred.strategy)
        rows.setdefault(
            (choice.history, turn),
            {
                "prompt": prompt_messages(choice.history, strategies),
                "completion": [supporter_message(turn)],
                "dialogue": choice.dialogue,
                "strategy": turn.strategy,
            },
        )
    return list(rows.values())


def kto_rows(pairs: Iterable[dict]) -> list[dict]:
    """{prompt, completion, label}: the pairs split in two and deduplicated (appendix G.1)."""
    rows = {}
    for pair in pairs:
        for side, label in (("chosen", True), ("rejected", False)):
            key = (_said(pair["prompt"]), _said(pair[side]), label)
            rows.setdefault(
                key,
                {
                    "prompt": pair["prompt"],
                    "completion": pair[side],
                    "label": label,
                    "dialogue": pair["dialogue"],
                    "strategy": pair[f"{side}_strategy"],
                },
            )
    return list(rows.values())


def _said(messages: list[dict]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in messages)
