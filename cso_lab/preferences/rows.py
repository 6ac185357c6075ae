"""Turns paths of choices into training rows of chat messages: distinct pairs, their halves for KTO, preferred turns for SFT."""

from collections.abc import Iterable, Sequence

from cso_lab.core.records import SUPPORTER, Turn, prompt_messages, supporter_message
from cso_lab.core.strategies import StrategySet
from cso_lab.preferences.escpro import Path, distinct_pairs
from cso_lab.search.paths import scored
from cso_lab.search.tree import Node


def pair_rows(paths: Sequence[Path], strategies: StrategySet) -> list[dict]:
    """Returns rows {prompt, chosen, rejected, dialogue, chosen_strategy, rejected_strategy, q_chosen, q_rejected}.

    A pair that several paths share is one row.
    """
    return [
        {
            "prompt": prompt_messages(pair.history, strategies),
            "chosen": [supporter_message(pair.chosen)],
            "rejected": [supporter_message(pair.rejected)],
            "dialogue": pair.dialogue,
            "chosen_strategy": pair.chosen.strategy,
            "rejected_strategy": pair.rejected.strategy,
            "q_chosen": pair.q_chosen,
            "q_rejected": pair.q_rejected,
        }
        for pair in distinct_pairs(paths)
    ]


def sft_rows(paths: Sequence[Path], strategies: StrategySet) -> list[dict]:
    """Returns rows {prompt, completion, dialogue, strategy}, one for every distinct preferred turn (ESC-Pro-SFT)."""
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
    """Returns rows {prompt, completion, label, dialogue, strategy}: the two halves of each pair, deduplicated (appendix G.1).

    `label` is true for a chosen response and false for a rejected one.
    """
    rows = {}
    for pair in pairs:
        for side, label in (("chosen", True), ("rejected", False)):
            key = (_hashable(pair["prompt"]), _hashable(pair[side]), label)
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


def prompt_rows(paths: Sequence[Path], strategies: StrategySet) -> list[dict]:
    """Returns rows {prompt, preferred, values, dialogue, scene, description}, one for every state in which a turn is preferred.

    `preferred` lists the strategies of the preferred turns there, and `values` is {strategy: Q} of the scored ones, {} without a search.
    """
    rows = {}
    for path in paths:
        for choice in path.choices:
            row = rows.setdefault(
                (choice.dialogue, choice.history),
                {
                    "prompt": prompt_messages(choice.history, strategies),
                    "preferred": [],
                    "values": _values(choice.preferred.parent),
                    "dialogue": choice.dialogue,
                    "scene": path.scene,
                    "description": path.description,
                },
            )
            if choice.preferred.strategy not in row["preferred"]:
                row["preferred"].append(choice.preferred.strategy)
    return list(rows.values())


def _values(state: Node) -> dict[str, float]:
    return {child.strategy: child.q for child in state.children if scored(child) and child.q is not None}


def _hashable(messages: list[dict]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in messages)
