"""Fixtures of the training tests: a shared folder for built backbones, and preference rows of a few turns."""

import pytest

from cso_lab.core.files import write_jsonl
from cso_lab.core.records import SEEKER, SUPPORTER, Turn, prompt_messages, supporter_message
from cso_lab.core.strategies import EXTES
from cso_lab.preferences.rows import kto_rows


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Rows of two dialogues: 8 pairs, 4 rows of SFT, 12 of KTO."""
    return write_rows(tmp_path_factory.mktemp("rows"), ["ann", "bob"])


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Rows of seven dialogues: 28 pairs, 14 rows of SFT, 42 of KTO, none of which is a multiple of 8."""
    return write_rows(tmp_path_factory.mktemp("uneven"), ["ann", "bob", "cat", "dan", "eve", "fay", "gus"])


def write_rows(folder, names):
    """Writes rows of dialogues of two turns, each with two dispreferred replies, and returns the folder."""
    pairs, sft = [], []
    for name in names:
        history = [Turn(SEEKER, f"I am {name} and I cannot sleep.")]
        for turn in range(2):
            reply = Turn(SUPPORTER, f"That sounds hard, {name}, number {turn}.", EXTES.names[turn])
            prompt = prompt_messages(history, EXTES)
            sft.append({"prompt": prompt, "completion": [supporter_message(reply)], "dialogue": name})
            for other in range(2):
                strategies = {"chosen_strategy": reply.strategy, "rejected_strategy": EXTES.names[4 + other]}
                rejected = Turn(SUPPORTER, "No." if other else "Look on the bright side of it all.", EXTES.names[4 + other])
                replies = {"chosen": [supporter_message(reply)], "rejected": [supporter_message(rejected)]}
                pairs.append({"prompt": prompt, **replies, **strategies, "dialogue": name})
            history += [reply, Turn(SEEKER, f"It does not get better, {turn}.")]
    for name, rows in {"pairs": pairs, "sft": sft, "kto": kto_rows(pairs)}.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder
