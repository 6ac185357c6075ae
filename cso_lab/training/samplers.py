"""The order in which rows are trained on: rows of one dialogue tree together, in each batch and in what a process takes of it."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice, pairwise

import numpy as np
from torch.utils.data import Sampler
from transformers import TrainerCallback

from cso_lab.training.prefix_forest import common_prefix
from cso_lab.training.rows import RESPONSES

# Arrangements of a batch that are tried before it is dealt: some milliseconds a batch.
_ARRANGEMENTS = 64


def tree_order(dialogues: Sequence[str], prompts: Sequence[str], batch_size: int, seed: int) -> list[int]:
    """An order of rows in which those of one dialogue travel together, several dialogues in every batch.

    The rows of a dialogue, sorted so that those with a long history in common are neighbours, are cut at places that change with
    `seed` into bundles of at most half a batch; bundles are shuffled and dealt into batches. Within a batch, bundles take turns, so
    that a row's neighbours are of other dialogues: KTO estimates its KL term on a neighbour's response.
    """
    chance = random.Random(seed)
    rows_of = defaultdict(list)
    for row, dialogue in enumerate(dialogues):
        rows_of[dialogue].append(row)
    bundles = []
    for rows in rows_of.values():
        rows.sort(key=lambda row: prompts[row])
        start = chance.randrange(len(rows))
        rows = rows[start:] + rows[:start]
        pieces = -(-len(rows) // max(1, batch_size // 2))
        bundles += [rows[len(rows) * i // pieces : len(rows) * (i + 1) // pieces] for i in range(pieces)]
    chance.shuffle(bundles)
    dealt = [(number, row) for number, bundle in enumerate(bundles) for row in chance.sample(bundle, len(bundle))]
    return [row for first in range(0, len(dealt), batch_size) for row in _taking_turns(dealt[first : first + batch_size])]


def _taking_turns(batch: Sequence[tuple[int, int]]) -> list[int]:
    """The rows of (bundle, row) with one of each bundle in turn as long as it has any."""
    seen: dict[int, int] = defaultdict(int)
    turns = []
    for bundle, row in batch:
        turns.append((seen[bundle], bundle, row))
        seen[bundle] += 1
    return [row for _, _, row in sorted(turns)]


class Dealer:
    """Deals the rows of a batch into shares of `share` rows, each of them what one process takes at once.

    What a batch consists of does not depend on its shares, and all shares have the same number of rows: the trainers average over the
    rows of a process and then over processes. The bundles of a batch (its rows of one dialogue, neighbours beside each other) follow one
    another and are cut every `share` rows. Of some arrangements, that is taken which leaves the fewest distinct characters to compute,
    over all shares and in the largest one, for which all processes wait. Characters are in proportion to tokens.
    """

    def __init__(self, rows: Sequence[Mapping], batch_size: int, share: int):
        self.batch_size, self.share = batch_size, share
        self.dialogues = [row["dialogue"] for row in rows]
        self.texts = [[(row["prompt"] + row[field]).encode() for field in RESPONSES if field in row] for row in rows]

    def __call__(self, order: Sequence[int]) -> list[int]:
        """`order`, in which the rows of every batch follow share by share."""
        return [
            row for first in range(0, len(order), self.batch_size) for row in self._deal(order[first : first + self.batch_size])
        ]

    def _deal(self, batch: Sequence[int]) -> Sequence[int]:
        if len(batch) <= self.share:
            return batch
        bundles = defaultdict(list)
        for row in batch:
            bundles[self.dialogues[row]].append(row)
        for rows in bundles.values():
            rows.sort(key=lambda row: self.texts[row])
        size = _Size({row: self.texts[row] for row in batch})

        def work(order: Sequence[int]) -> int:
            sizes = [size(order[first : first + self.share]) for first in range(0, len(order), self.share)]
            return sum(sizes) + len(sizes) * max(sizes)

        return min(_arrangements(list(bundles.values())), key=work)


def _arrangements(bundles: list[list[int]]) -> Iterator[list[int]]:
    """The bundles one after the other: the largest first, and in other orders in which each may begin anywhere. Always the same ones."""
    chance = random.Random(0)
    yield [row for rows in sorted(bundles, key=len, reverse=True) for row in rows]
    for _ in range(_ARRANGEMENTS - 1):
        order = []
        for rows in chance.sample(bundles, len(bundles)):
            start = chance.randrange(len(rows))
            order += rows[start:] + rows[:start]
        yield order


class _Size:
    """Distinct characters of rows given by their texts: those of a prefix that texts have in common count once."""

    def __init__(self, texts_of: Mapping[int, Sequence[bytes]]):
        texts = sorted({text for texts in texts_of.values() for text in texts})
        place = {text: i for i, text in enumerate(texts)}
        self.places = {row: [place[text] for text in texts] for row, texts in texts_of.items()}
        arrays = [np.frombuffer(text, dtype=np.uint8) for text in texts]
        self.lengths = np.array([len(array) for array in arrays])
        # What two sorted texts have in common is the least of what neighbours between them have.
        neighbours = [common_prefix(a, b) for a, b in pairwise(arrays)]
        self.common = np.zeros((len(texts), len(texts)), dtype=np.int64)
        for i in range(len(neighbours)):
            self.common[i, i + 1 :] = np.minimum.accumulate(neighbours[i:])

    def __call__(self, rows: Sequence[int]) -> int:
        places = np.unique([place for row in rows for place in self.places[row]])
        return int(self.lengths[places].sum() - self.common[places[:-1], places[1:]].sum())


def pad_to_multiple(order: Sequence, whole: int) -> list:
    """`order` with as many of its last rows again as it takes for `whole` to divide its length.

    Several processes take `whole` rows at once. Left alone they would fill up an epoch's last step with the epoch's first rows; so it has
    the rows that one process has in it.
    """
    left = len(order) % whole
    last = order[len(order) - left :]
    return [*order, *islice(cycle(last), whole - left)] if left else list(order)


class TreeSampler(Sampler):
    """`tree_order`, another one every epoch, `pad_to_multiple` to a multiple of `whole` and dealt into shares by `deal`.

    `position` says where in the dataset each row is, if they are not in the order of `dialogues`.
    """

    def __init__(
        self,
        dialogues: Sequence[str],
        prompts: Sequence[str],
        batch_size: int,
        seed: int,
        whole: int = 1,
        deal: Dealer | None = None,
        position: Mapping[int, int] | Sequence[int] | None = None,
    ):
        self.dialogues, self.prompts, self.batch_size, self.seed, self.epoch = dialogues, prompts, batch_size, seed, 0
        self.whole, self.deal = whole, deal or list
        self.position = range(len(dialogues)) if position is None else position

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer, so that a resumed training draws what an undisturbed one does."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.dialogues) // self.whole) * self.whole

    def __iter__(self) -> Iterator[int]:
        order = tree_order(self.dialogues, self.prompts, self.batch_size, self.seed * 1_000_003 + self.epoch)
        return iter([self.position[row] for row in self.deal(pad_to_multiple(order, self.whole))])


class SetEpochCallback(TrainerCallback):
    """Tells a sampler its epoch: what wraps it in several processes does not hand that on when a training is resumed."""

    def __init__(self, sampler: TreeSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch + 1e-6))
