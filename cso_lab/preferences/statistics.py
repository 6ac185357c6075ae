"""Table 5: the number and the length of dialogues and utterances in the seed dialogues and in ESC-Pro."""

from collections.abc import Iterator, Sequence

from cso_lab.core.records import SEEKER, Dialogue
from cso_lab.core.words import count_words
from cso_lab.preferences.escpro import Path
from cso_lab.search.tree import Node

PARTS = ("seeker", "preferred", "dispreferred")


def table5(seed: Sequence[Dialogue] | None, paths: Sequence[Path]) -> dict:
    """Returns {"seed", "per_path", "distinct"}: Table 5's columns for the seed dialogues and, counted in two ways, for ESC-Pro.

    "per_path" counts as the paper does: a turn that several paths share counts once for each of them, and so do its negatives. "distinct"
    counts every utterance of a tree once. Lengths of utterances are in words, lengths of dialogues in utterances. A path's seeker
    utterances are those that precede a preferred turn. `seed` is None if the seed dialogues are unknown.
    """
    per_path = {part: [] for part in PARTS}
    distinct = {part: {} for part in PARTS}
    for part, dialogue, node, text in _utterances(paths):
        per_path[part].append(text)
        distinct[part][dialogue, node.id] = text
    return {
        "seed": dict.fromkeys(_columns(None, [], None)) if seed is None else _seed(seed),
        "per_path": _escpro(len(paths), per_path),
        "distinct": _escpro(
            len({path.dialogue for path in paths}), {part: list(texts.values()) for part, texts in distinct.items()}
        ),
    }


def part_texts(seed: Sequence[Dialogue] | None, paths: Sequence[Path]) -> dict[str, list[str]]:
    """Returns {part: its utterances}, counted per path as in Table 5, for the rows of Table 7. Without `seed` its parts are missing."""
    parts: dict[str, list[str]] = {}
    if seed is not None:
        turns = [turn for dialogue in seed for turn in dialogue.turns]
        parts["seed_seeker"] = [turn.text for turn in turns if turn.speaker == SEEKER]
        parts["seed_supporter"] = [turn.text for turn in turns if turn.speaker != SEEKER]
        parts["seed"] = [turn.text for turn in turns]
    utterances = list(_utterances(paths))
    for part in PARTS:
        parts[part] = [text for utterance_part, _, _, text in utterances if utterance_part == part]
    return parts | {"escpro": [text for *_, text in utterances]}


def _utterances(paths: Sequence[Path]) -> Iterator[tuple[str, str, Node, str]]:
    """Yields (part, dialogue, node, text) of every utterance on the paths and of every negative."""
    for path in paths:
        for choice in path.choices:
            yield "seeker", path.dialogue, choice.preferred.parent, choice.history[-1].text
            yield "preferred", path.dialogue, choice.preferred, choice.preferred.supporter
            for negative in choice.negatives:
                yield "dispreferred", path.dialogue, negative, negative.supporter


def strategy_counts(seed: Sequence[Dialogue], pairs: Sequence[dict]) -> dict:
    """Returns {"seed", "chosen", "rejected"}: {strategy: its count} in the seed dialogues and in the two halves of distinct pairs."""

    def count(labels) -> dict[str, int]:
        labels = list(labels)
        return {label: labels.count(label) for label in sorted(set(labels))}

    return {
        "seed": count(
            turn.strategy for dialogue in seed for turn in dialogue.turns if turn.speaker != SEEKER and turn.strategy
        ),
        "chosen": count(pair["chosen_strategy"] for pair in pairs),
        "rejected": count(pair["rejected_strategy"] for pair in pairs),
    }


def _seed(seed: Sequence[Dialogue]) -> dict:
    texts = [turn.text for dialogue in seed for turn in dialogue.turns]
    return _columns(len(seed), texts, len(texts))


def _escpro(dialogues: int, parts: dict[str, list[str]]) -> dict:
    spoken = len(parts["seeker"]) + len(parts["preferred"])
    columns = {part: _columns(None, texts, None) for part, texts in parts.items()}
    return columns | {"all": _columns(dialogues, [text for texts in parts.values() for text in texts], spoken)}


def _columns(dialogues: int | None, texts: list[str], spoken: int | None) -> dict:
    """Returns the four rows of Table 5 for a column; None if the paper prints a dash. `spoken`: utterances without negatives."""
    words = sum(map(count_words, texts))
    return {
        "dialogues": dialogues,
        "utterances": len(texts),
        "mean_dialogue_utterances": spoken / dialogues if dialogues else None,
        "mean_utterance_words": words / len(texts) if texts else None,
    }
