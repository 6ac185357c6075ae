"""Run folders as a sweep leaves them, at realistic sizes, with nothing measured in them."""

import random
from pathlib import Path

from fakes import metrics

from cso_lab.core.files import write_json, write_jsonl
from cso_lab.core.records import TEST_DIALOGUES, Dialogue, Turn
from cso_lab.core.strategies import EXTES
from cso_lab.evaluation.metrics import confusion, preference, preference_bias, strategy_scores

ALGORITHMS = ("base", "sft", "dpo", "kto")
NAMES = EXTES.names


def dialogues_of(turns: int = 215, a_dialogue: int = 8) -> list[Dialogue]:
    """Dialogues with so many predicted turns in all."""
    chance, dialogues = random.Random(0), []
    for first in range(0, turns, a_dialogue):
        number = len(dialogues)
        said = []
        for k in range(min(a_dialogue, turns - first)):
            said += [
                Turn("seeker", f"seeker of dialogue {number} at {k} " + "and so on " * 10),
                Turn("supporter", f"gold reply {k} of dialogue {number} " + "as written " * 10, chance.choice(NAMES)),
            ]
        dialogues.append(Dialogue(f"d-{number:04}", f"Scene {number}", f"What happened in {number}.", tuple(said)))
    return dialogues


def write_run(
    folder: Path, dialogues: list[Dialogue], number: int = 0, steps: int = 200, search: Path | None = None, **cell
) -> Path:
    """A finished run over these dialogues; the more often `number` is drawn, the better it chooses. `cell`: as for fakes.metrics."""
    chance = random.Random(number)
    predictions = []
    for dialogue in dialogues:
        for turn in dialogue.supporter_turns():
            gold = dialogue.turns[turn]
            chosen = gold.strategy if chance.random() < 0.3 else chance.choice([*NAMES[:6], None])
            said = f"reply {number} at {turn} of {dialogue.id} " + "with some words " * 12
            predictions.append(
                {
                    "dialogue": dialogue.id,
                    "turn": turn,
                    "gold_strategy": gold.strategy,
                    "gold_response": gold.text,
                    "strategy": chosen,
                    "response": said,
                    "raw": said,
                }
            )
    gold, predicted = ([p[key] for p in predictions] for key in ("gold_strategy", "strategy"))
    counts = confusion(gold, predicted, NAMES)
    p = preference(counts[:, :-1])
    scores = strategy_scores(gold, predicted, NAMES)
    strategies = {
        name: scores["strategies"][name] | {"predicted": int(counts[:, k].sum()), "preference": float(p[k])}
        for k, name in enumerate(NAMES)
    }
    left = metrics(q=scores["Q"], b=float(preference_bias(p)), n=len(predictions), **cell) | {"strategies": strategies}
    write_json(folder / "metrics.json", left)
    write_jsonl(folder / "predictions.jsonl", predictions)
    write_jsonl(folder / TEST_DIALOGUES, dialogues)
    trained = cell.get("algo", "dpo") != "base"
    if trained:
        log = [
            {"step": n, "loss": 2 / n + number / 50, "grad_norm": 1 / n, "rewards/margins": n / 100}
            for n in range(1, steps + 1)
        ]
        write_jsonl(folder / "train_log.jsonl", log)
    seconds = {"train": 100.0 + number, "generate": 50.0, "evaluate": 1.0}
    write_json(
        folder / "run.json", {"seconds": seconds, "commit": "c0ffee", "versions": {"torch": "2"}, "overrides": ["algo=dpo"]}
    )
    write_json(
        folder / "stages.json", {"search": str(search), "train": str(folder)} if trained and search else {"train": str(folder)}
    )
    return folder


def write_sweep(folder: Path, cells: int, search: Path | None = None, turns: int = 215, **more) -> list[Path]:
    """`cells` run folders: four algorithms in turn, each under seed after seed."""
    dialogues = dialogues_of(turns)
    return [
        write_run(folder / f"cell-{n:02}", dialogues, n, search=search, algo=ALGORITHMS[n % 4], variant=str(n), **more)
        for n in range(cells)
    ]
