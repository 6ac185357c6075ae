"""Table 5: how many dialogues and utterances the seed and ESC-Pro hold, and how long they are."""

from collections.abc import Iterator, Sequence

from cso_lab.core.records import SEEKER, Dialogue
from cso_lab.core.words import count_words
from cso_lab.preferences.escpro import Path
from cso_lab.search.tree import Node

PARTS = ("seeker", "preferred", "dispreferred")


def table5(seed: Sequence[Dialogue] | None, paths: Sequence[Path]) -> dict:
    """{"per_path": Table 5 as the paper counts it, "distinct": the same with every utterance of a tree counted once}.

    Lengths of utterances are in words, lengths of dialogues in utterances. A path's seeker utterances are those that precede a
    preferred turn. `seed`: None if unknown. Per path, a turn that several paths share counts for each, and so do its negatives.
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
    """The utterances of each part of the data, counted per path as in Table 5: the rows of Table 7. Without `seed` none of its parts."""
    parts: dict[str, list[str]] = {}
    if seed is not None:
        turns = [turn for dialogue in seed for turn in dialogue.turns]
        parts["seed_seeker"] = [turn.text for turn in turns if turn.speaker == SEEKER]
        parts["seed_supporter"] = [turn.text for turn in turns if turn.speaker != SEEKER]
        parts["seed"] = [turn.text for turn in turns]
    said = list(_utterances(paths))
    for part in PARTS:
        parts[part] = [text for of, _, _, text in said if of == part]
    return parts | {"escpro": [text for *_, text in said]}


def _utterances(paths: Sequence[Path]) -> Iterator[tuple[str, str, Node, str]]:
    """(part, dialogue, node, text) of every utterance along the paths, and of what is dispreferred beside them."""
    for path in paths:
        for choice in path.choices:
            yield "seeker", path.dialogue, choice.preferred.parent, choice.history[-1].text
            yield "preferred", path.dialogue, choice.preferred, choice.preferred.supporter
            for negative in choice.negatives:
                yield "dispreferred", path.dialogue, negative, negative.supporter


def strategy_counts(seed: Sequence[Dialogue], pairs: Sequence[dict]) -> dict:
    """How often each strategy occurs in the seed, among distinct pairs' preferred turns, and among their dispreferred ones."""

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
    """The four rows of Table 5; None where the paper prints a dash. `spoken`: utterances on the dialogues themselves."""
    words = sum(map(count_words, texts))
    return {
        "dialogues": dialogues,
        "utterances": len(texts),
        "mean_dialogue_utterances": spoken / dialogues if dialogues else None,
        "mean_utterance_words": words / len(texts) if texts else None,
    }
