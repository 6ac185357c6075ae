"""Samples and run folders to be judged, made by hand."""

from pathlib import Path

from reporting.run_folders import dialogues_of, write_run

from cso_lab.core.files import write_json, write_jsonl
from cso_lab.core.records import SEEKER, SUPPORTER, Turn
from cso_lab.judging.items import COMPARISON, RATING, Item, Sample
from cso_lab.judging.settings import load_settings


def settings(*overrides: str) -> dict:
    return load_settings(overrides)


def sample_of(items: int = 3, criteria=("empathy", "strategy"), texts=("good reply", "bad reply"), kind=COMPARISON) -> Sample:
    """`items` pairs, the first reply of each being texts[0]; in a rating the replies are seed, preferred, dispreferred in turn."""
    groups = ("seed", "preferred", "dispreferred") if kind == RATING else (None,)
    made = []
    for n in range(items):
        history = (Turn(SEEKER, f"I am sad, {n}."), Turn(SUPPORTER, "Since when?", "Affirmation"), Turn(SEEKER, "Since May."))
        replies = tuple(Turn(SUPPORTER, f"{text} {n}", "Affirmation") for text in texts[: 1 if kind == RATING else 2])
        made.append(Item.of(n, "Lost a friend.", history, replies, groups[n % len(groups)]))
    sides = groups if kind == RATING else ("ours", "theirs")
    return Sample(
        "6" if kind == RATING else "1", kind, "A study", sides, tuple(criteria), 0, {"pairs": items}, ("run",), tuple(made), ()
    )


def two_runs(folder: Path, turns: int = 24) -> tuple[Path, Path]:
    """A CSO and an SFT run over the same test dialogues; the first has preference data: 6 pairs of one dialogue."""
    dialogues = dialogues_of(turns)
    first = write_run(folder / "dpo", dialogues, 1, algo="dpo")
    second = write_run(folder / "sft", dialogues, 2, algo="sft")
    data = folder / "shared" / "dataset" / "abc"
    rows = [
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": f"I cannot go on with {n}."}],
            "chosen": [{"role": "assistant", "content": f"(Emotional Validation) That sounds heavy, number {n}."}],
            "rejected": [{"role": "assistant", "content": f"(Share Information) Most people sleep {n} hours."}],
            "dialogue": "d-0001",
            "chosen_strategy": "Emotional Validation",
            "rejected_strategy": "Share Information",
        }
        for n in range(6)
    ]
    write_jsonl(data / "preferences" / "pairs.jsonl", rows)
    write_json(first / "stages.json", {"dataset": str(data), "train": str(first)})
    return first, second
