"""What each process gets of a batch: as many rows as the others, in whole bundles, so that prefixes stay shared within it."""

import random
from collections import Counter

import pytest
import torch

from cso_lab.training.prefix_forest import IGNORED, TokenCount, build_prefix_forest
from cso_lab.training.samplers import Layout, Partitioner, TreeSampler

BATCH = 32
WORDS = [f"w{i}" for i in range(500)]
SYSTEM = " ".join(f"s{i}" for i in range(200))


def bushy_rows(trees: int, pairs: int) -> list[dict]:
    """So many pairs of each of so many search trees: every preferred turn goes on from an earlier one and beats two to four others."""
    chance = random.Random(0)

    def utterance():
        return " ".join(chance.choices(WORDS, k=chance.randint(17, 29)))

    rows = []
    for tree in range(trees):
        prompts, own = [f"{SYSTEM} {utterance()}"], []
        while len(own) < pairs:
            prompt, reply = chance.choice(prompts[-6:]), utterance()
            for _ in range(min(chance.randint(2, 4), pairs - len(own))):
                own.append({"prompt": prompt, "chosen": f" {reply}", "rejected": f" {utterance()}", "dialogue": str(tree)})
            prompts.append(f"{prompt} {reply} {utterance()}")
        rows += own
    return rows


def single(rows: list[dict]) -> list[dict]:
    """KTO's rows."""
    replies = dict.fromkeys(
        (row["prompt"], row[side], side, row["dialogue"]) for row in rows for side in ("chosen", "rejected")
    )
    return [
        {"prompt": prompt, "completion": text, "label": side == "chosen", "dialogue": name}
        for prompt, text, side, name in replies
    ]


def ratio(rows: list[dict], order: list[int], share: int) -> float:
    """Tokens of padded rows over those of their trees, over all shares. Tokens are words; TRL takes four rows at once."""
    number: dict[str, int] = {}
    texts = len({"chosen", "rejected", "completion"} & rows[0].keys())
    count = TokenCount(texts, rows_per_batch=4)
    for first in range(0, len(order), share):
        taken = [rows[row] for row in order[first : first + share]]
        sides = [row["prompt"] + row[side] for side in ("chosen", "rejected", "completion") for row in taken if side in row]
        ids = [[number.setdefault(word, len(number)) for word in text.split()] for text in sides]
        width = max(map(len, ids))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
        real = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        count.add(real, len(build_prefix_forest(padded, real, padded.masked_fill(real == 0, IGNORED), 1536)))
    return count.as_rows / count.computed


def drawn(rows: list[dict], processes: int, steps: int | None = None) -> list[int]:
    """The rows of the first epoch, or its first steps, in the order in which so many processes take them."""
    deal = Partitioner(rows, Layout(len(rows), BATCH, BATCH // processes, processes))
    names, prompts = ([row[field] for row in rows] for field in ("dialogue", "prompt"))
    order = list(TreeSampler(names, prompts, BATCH, 0, deal))
    return order if steps is None else order[: steps * BATCH]


@pytest.mark.parametrize("kto", [False, True])
def test_four_processes_share_at_least_six_tenths_of_what_one_shares(kto):
    rows = bushy_rows(100, 80)
    rows = single(rows) if kto else rows
    one, four = (ratio(rows, drawn(rows, processes, steps=12), BATCH // processes) for processes in (1, 4))
    assert four >= 0.6 * one


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_a_batch_has_the_same_rows_whatever_the_number_of_processes(processes):
    rows = bushy_rows(9, 21)
    alone, dealt = drawn(rows, 1), drawn(rows, processes)
    assert len(dealt) == len(rows) and len(rows) % BATCH
    for first in range(0, len(rows), BATCH):
        assert sorted(alone[first : first + BATCH]) == sorted(dealt[first : first + BATCH])


def test_bundles_stay_whole_where_they_fit():
    rows = [
        {"prompt": f"{name} " * 50, "completion": f"{name}{i}", "dialogue": name}
        for name, count in {"a": 4, "b": 4, "c": 3, "d": 3, "e": 1, "f": 1}.items()
        for i in range(count)
    ]
    dealt = Partitioner(rows, Layout(16, 16, 4, 4))(random.Random(0).sample(range(16), 16))
    shares = [Counter(rows[row]["dialogue"] for row in dealt[first : first + 4]) for first in range(0, 16, 4)]
    assert sorted(dealt) == list(range(16))
    assert sorted(sorted(share.values()) for share in shares) == [[1, 3], [1, 3], [4], [4]]
