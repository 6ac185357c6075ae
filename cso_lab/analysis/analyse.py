"""Computes all analyses of a dataset, as the object of inspection.json."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as Folder

from cso_lab.analysis.distinguishing import distinguishing
from cso_lab.analysis.duplicates import Text, between, long_enough, within
from cso_lab.analysis.strategy_by_stage import strategies_by_stage
from cso_lab.analysis.toxicity import Scorer, toxicity
from cso_lab.core.records import Dialogue, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.preferences.escpro import Path, distinct_pairs
from cso_lab.preferences.statistics import part_texts


def inspect(
    *,
    paths: Sequence[Path],
    seed: Sequence[Dialogue] | None,
    train: Sequence[Dialogue],
    test: Sequence[Dialogue],
    strategies: StrategySet,
    compared: Mapping,
    scorer: Scorer | None,
    scores: Folder,
    notices: Sequence[str] = (),
) -> dict:
    """Returns {progress, notices, toxicity, duplicates, pairs, distinguishing} of the dataset made of `paths`; toxicity is None without a
    `scorer`, distinguishing without pairs of two dialogues.

    `seed`: the dialogues that were searched, None if unknown; `train` and `test`: the sides of the split; `compared`: {words, similarity,
    shortest}, see conf/inspection; `scores`: the folder of the scorer's cache; `notices`: warnings that are read with the numbers.
    """
    progress = {"escpro": strategies_by_stage((_turns(path) for path in paths if path.choices), strategies.names)}
    if seed is not None:
        progress["seed"] = strategies_by_stage((dialogue.turns for dialogue in seed), strategies.names)
    parts = part_texts(seed, paths)
    return {
        "progress": progress,
        "notices": list(notices),
        "toxicity": toxicity(parts, scorer, scores) if scorer else None,
        "duplicates": _duplicates(train, test, parts["escpro"], **compared),
        "pairs": _pairs(paths),
        "distinguishing": distinguishing(paths),
    }


def _turns(path: Path) -> tuple[Turn, ...]:
    """Returns the turns of an expanded dialogue up to its last preferred turn."""
    return path.choices[-1].preferred.history()


def _duplicates(
    train: Sequence[Dialogue], test: Sequence[Dialogue], escpro: Iterable[str], words: int, similarity: float, shortest: int
) -> dict:
    """Returns the near-duplicates within and between the sides of the split, and between ESC-Pro's utterances and the test side."""
    dialogues = [[Text(d.id, " \n".join(turn.text for turn in d.turns)) for d in side] for side in (train, test)]
    utterances = [
        long_enough((Text(f"{d.id}, utterance {k}", turn.text) for d in side for k, turn in enumerate(d.turns, 1)), shortest)
        for side in (train, test)
    ]
    escpro_texts = long_enough((Text(f"ESC-Pro {n}", text) for n, text in enumerate(dict.fromkeys(escpro), 1)), shortest)

    def compare(train: Sequence[Text], test: Sequence[Text]) -> dict:
        return {
            "within_train": within(train, words, similarity),
            "within_test": within(test, words, similarity),
            "train_test": between(train, test, words, similarity),
        }

    return {
        "words": words,
        "similarity": similarity,
        "shortest": shortest,
        "dialogues": compare(*dialogues),
        "utterances": compare(*utterances) | {"escpro_test": between(escpro_texts, utterances[1], words, similarity)},
    }


def _pairs(paths: Sequence[Path]) -> dict:
    """Returns {along_paths, distinct, distinct_replies}: the numbers of preference pairs.

    `along_paths` counts a pair once for each path, `distinct` once (these are trained on), `distinct_replies` ignores the history.
    """
    pairs = [pair for path in paths for choice in path.choices for pair in choice.pairs()]
    return {
        "along_paths": len(pairs),
        "distinct": len(distinct_pairs(paths)),
        "distinct_replies": len({(pair.chosen, pair.rejected) for pair in pairs}),
    }
