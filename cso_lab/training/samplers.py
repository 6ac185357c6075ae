"""The order in which rows are trained on: rows of a dialogue go together, into a batch and into a process's part of it.

Such rows have long prefixes in common, which a process then computes once (see `prefix_forest`).
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice, pairwise

import numpy as np
from torch.utils.data import BatchSampler, Sampler
from transformers import TrainerCallback

from cso_lab.training.prefix_forest import common_prefix
from cso_lab.training.rows import RESPONSES

# How many arrangements of a batch are compared before it is partitioned: some milliseconds a batch.
_ARRANGEMENTS = 64


def tree_order(dialogues: Sequence[str], prompts: Sequence[str], batch_size: int, seed: int) -> list[int]:
    """Returns an order of row indices in which rows of one dialogue go into the same batch, and every batch has several dialogues.

    The rows of a dialogue, sorted so that those with a long history in common are neighbours, are cut at positions that depend on
    `seed` into bundles of at most half a batch; bundles are shuffled and filled into batches. Within a batch, bundles alternate, so
    that a row's neighbours are of other dialogues: KTO estimates its KL term on a neighbour's response.
    """
    rng = random.Random(seed)
    rows_of = defaultdict(list)
    for row, dialogue in enumerate(dialogues):
        rows_of[dialogue].append(row)
    bundles = []
    for rows in rows_of.values():
        rows.sort(key=lambda row: prompts[row])
        start = rng.randrange(len(rows))
        rows = rows[start:] + rows[:start]
        pieces = -(-len(rows) // max(1, batch_size // 2))
        bundles += [rows[len(rows) * i // pieces : len(rows) * (i + 1) // pieces] for i in range(pieces)]
    rng.shuffle(bundles)
    ordered = [(number, row) for number, bundle in enumerate(bundles) for row in rng.sample(bundle, len(bundle))]
    return [row for first in range(0, len(ordered), batch_size) for row in _alternate(ordered[first : first + batch_size])]


def _alternate(batch: Sequence[tuple[int, int]]) -> list[int]:
    """Returns the rows of (bundle, row) pairs, taking one of each bundle in turn until all are taken."""
    counts: dict[int, int] = defaultdict(int)
    rounds = []
    for bundle, row in batch:
        rounds.append((counts[bundle], bundle, row))
        counts[bundle] += 1
    return [row for _, _, row in sorted(rounds)]


@dataclass(frozen=True)
class Layout:
    """How an epoch's rows are shared out: in optimizer steps of `batch_size` rows, of which a process takes `part_size` at once."""

    rows: int
    batch_size: int
    part_size: int
    processes: int = 1

    @property
    def steps(self) -> int:
        """The number of optimizer steps of an epoch."""
        return -(-self.rows // self.batch_size)

    def step(self, number: int) -> list[list[int]]:
        """Returns the `passes` of an optimizer step; steps are counted from 0 over all epochs."""
        return self.passes(min(self.batch_size, self.rows - number % self.steps * self.batch_size))

    def passes(self, rows: int) -> list[list[int]]:
        """Returns, for each forward pass of a step of so many rows, how many of them each process takes.

        They are as many as possible alike. There is a 0 only if there are fewer rows than parts.
        """
        parts = -(-rows // (self.part_size * self.processes)) * self.processes
        smallest, larger = divmod(rows, parts)
        sizes = [smallest + (part < larger) for part in range(parts)]
        return [sizes[first : first + self.processes] for first in range(0, parts, self.processes)]


class Partitioner:
    """Partitions every batch into the parts of a layout, each of which one process takes in one forward pass.

    The rows of a batch do not depend on its parts. The bundles of a batch (its rows of one dialogue, sorted by text) are put one after
    the other and cut into parts. Of several arrangements the one with the least work is taken: the fewest distinct characters to
    compute, over all parts plus in the largest part, for which all processes wait. Characters are proportional to tokens.
    """

    def __init__(self, rows: Sequence[Mapping], layout: Layout):
        self.layout = layout
        self.dialogues = [row["dialogue"] for row in rows]
        self.texts = [[(row["prompt"] + row[field]).encode() for field in RESPONSES if field in row] for row in rows]

    def __call__(self, order: Sequence[int]) -> list[int]:
        """Returns `order` with the rows of every batch arranged part by part."""
        size = self.layout.batch_size
        batches = (order[first : first + size] for first in range(0, len(order), size))
        return [row for batch in batches for row in self._partition(batch)]

    def _partition(self, batch: Sequence[int]) -> Sequence[int]:
        cuts = list(pairwise(accumulate(chain(*self.layout.passes(len(batch))), initial=0)))
        if len(cuts) == 1:
            return batch
        bundles = defaultdict(list)
        for row in batch:
            bundles[self.dialogues[row]].append(row)
        for rows in bundles.values():
            rows.sort(key=lambda row: self.texts[row])
        size = _Size({row: self.texts[row] for row in batch})

        def work(order: Sequence[int]) -> int:
            sizes = [size(order[first:last]) for first, last in cuts if first < last]
            return sum(sizes) + len(sizes) * max(sizes)

        return min(_arrangements(list(bundles.values())), key=work)


def _arrangements(bundles: list[list[int]]) -> Iterator[list[int]]:
    """Yields orders of a batch's rows: the bundles by size, largest first, then in random orders, each bundle rotated at random.

    The random numbers are the same for every batch, so that a training can be repeated.
    """
    rng = random.Random(0)
    yield [row for rows in sorted(bundles, key=len, reverse=True) for row in rows]
    for _ in range(_ARRANGEMENTS - 1):
        order = []
        for rows in rng.sample(bundles, len(bundles)):
            start = rng.randrange(len(rows))
            order += rows[start:] + rows[:start]
        yield order


class _Size:
    """Counts the distinct characters of rows: the characters of a prefix that several texts have in common count once."""

    def __init__(self, texts_of: Mapping[int, Sequence[bytes]]):
        texts = sorted({text for texts in texts_of.values() for text in texts})
        index = {text: i for i, text in enumerate(texts)}
        self.indices = {row: [index[text] for text in texts] for row, texts in texts_of.items()}
        arrays = [np.frombuffer(text, dtype=np.uint8) for text in texts]
        self.lengths = np.array([len(array) for array in arrays])
        # The common prefix of two sorted texts is the shortest of those of all neighbours between them.
        neighbours = [common_prefix(a, b) for a, b in pairwise(arrays)]
        self.common = np.zeros((len(texts), len(texts)), dtype=np.int64)
        for i in range(len(neighbours)):
            self.common[i, i + 1 :] = np.minimum.accumulate(neighbours[i:])

    def __call__(self, rows: Sequence[int]) -> int:
        indices = np.unique([index for row in rows for index in self.indices[row]])
        return int(self.lengths[indices].sum() - self.common[indices[:-1], indices[1:]].sum())


class TreeSampler(Sampler):
    """Draws rows in `tree_order`, a different one every epoch, partitioned by `partition`.

    `position` maps each row to its index in the dataset, if the dataset is not in the order of `dialogues`.
    """

    def __init__(
        self,
        dialogues: Sequence[str],
        prompts: Sequence[str],
        batch_size: int,
        seed: int,
        partition: Partitioner | None = None,
        position: Mapping[int, int] | Sequence[int] | None = None,
    ):
        self.dialogues, self.prompts, self.batch_size, self.seed, self.epoch = dialogues, prompts, batch_size, seed, 0
        self.partition = partition or list
        self.position = range(len(dialogues)) if position is None else position

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch that the order depends on; the trainer calls this, so that a resumed training draws the same rows."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dialogues)

    def __iter__(self) -> Iterator[int]:
        order = tree_order(self.dialogues, self.prompts, self.batch_size, self.seed * 1_000_003 + self.epoch)
        return iter([self.position[row] for row in self.partition(order)])


class PartSampler(BatchSampler):
    """Yields the parts of an epoch, pass by pass and in each pass process by process; accelerate gives every process its own.

    A process for which a pass has no row gets one that another process has too, since all of them have to compute something; it counts
    nothing (see `row_weights`). It has no attribute `batch_size`, or accelerate would make all parts equal with rows of other steps.
    """

    def __init__(self, sampler: Iterable[int], layout: Layout):
        self.sampler, self.layout = sampler, layout

    def __len__(self) -> int:
        return sum(len(self.layout.step(number)) for number in range(self.layout.steps)) * self.layout.processes

    def __iter__(self) -> Iterator[list[int]]:
        order = iter(self.sampler)
        part: list[int] = []
        for number in range(self.layout.steps):
            for size in chain(*self.layout.step(number)):
                part = list(islice(order, size)) or part[-1:]
                yield part


class SetEpochCallback(TrainerCallback):
    """Sets a sampler's epoch. With several processes the sampler is wrapped, and the wrapper does not set it on resuming."""

    def __init__(self, sampler: TreeSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Passes the epoch that begins to the sampler."""
        self.sampler.set_epoch(int(state.epoch + 1e-6))
