"""Everything that is looked at in a dataset, as the one object of inspection.json."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as Folder

from cso_lab.analysis.duplicates import Text, between, long_enough, within
from cso_lab.analysis.strategy_by_stage import strategy_progress
from cso_lab.analysis.toxicity import Scorer, toxicity
from cso_lab.core.records import Dialogue, Turn
from cso_lab.core.strategies import StrategySet
from cso_lab.preferences.escpro import Path
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
    """{progress, notices, toxicity, duplicates, pairs} of the dataset made of `paths`; None of what is not asked for.

    `seed`: the dialogues that were searched, None if unknown; `train` and `test`: the sides of the split; `compared`: {words, similarity,
    shortest}, see conf/inspection; `scores`: the folder in which the scorer keeps what it has scored.
    """
    progress = {"escpro": strategy_progress((_turns(path) for path in paths if path.choices), strategies.names)}
    if seed is not None:
        progress["seed"] = strategy_progress((dialogue.turns for dialogue in seed), strategies.names)
    parts = part_texts(seed, paths)
    return {
        "progress": progress,
        "notices": list(notices),
        "toxicity": toxicity(parts, scorer, scores) if scorer else None,
        "duplicates": _duplicates(train, test, parts["escpro"], **compared),
        "pairs": _pairs(paths),
    }


def _turns(path: Path) -> tuple[Turn, ...]:
    """An expanded dialogue from its opening to its last words."""
    return path.choices[-1].preferred.history()


def _duplicates(
    train: Sequence[Dialogue], test: Sequence[Dialogue], escpro: Iterable[str], words: int, similarity: float, shortest: int
) -> dict:
    """The sides of the split compared, each with itself and with the other; and with the test set what the dataset trains on."""
    sides = [[Text(d.id, " \n".join(turn.text for turn in d.turns)) for d in side] for side in (train, test)]
    said = [
        long_enough((Text(f"{d.id}, utterance {k}", turn.text) for d in side for k, turn in enumerate(d.turns, 1)), shortest)
        for side in (train, test)
    ]
    written = long_enough((Text(f"ESC-Pro {n}", text) for n, text in enumerate(dict.fromkeys(escpro), 1)), shortest)

    def compared(train: Sequence[Text], test: Sequence[Text]) -> dict:
        return {
            "within_train": within(train, words, similarity),
            "within_test": within(test, words, similarity),
            "train_test": between(train, test, words, similarity),
        }

    return {
        "words": words,
        "similarity": similarity,
        "shortest": shortest,
        "dialogues": compared(*sides),
        "utterances": compared(*said) | {"escpro_test": between(written, said[1], words, similarity)},
    }


def _pairs(paths: Sequence[Path]) -> dict:
    """{along_paths, distinct, distinct_replies}: preference pairs counted for each path; once each (which is what is trained on); and how
    many distinct (preferred, dispreferred) replies there are, whatever was said before."""
    pairs = [pair for path in paths for choice in path.choices for pair in choice.pairs()]
    return {
        "along_paths": len(pairs),
        "distinct": len({(pair.history, pair.chosen, pair.rejected) for pair in pairs}),
        "distinct_replies": len({(pair.chosen, pair.rejected) for pair in pairs}),
    }
