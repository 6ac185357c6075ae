"""The order in which rows are trained on: rows of one dialogue tree together, or shuffled one by one."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

from torch.utils.data import Sampler
from transformers import TrainerCallback


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


def filled(order: Sequence, whole: int) -> list:
    """`order` with as many of its last rows again as it takes for `whole` to divide its length.

    Several processes take `whole` rows at once. Left alone they would fill up an epoch's last step with the epoch's first rows; so it has
    the rows that one process has in it.
    """
    left = len(order) % whole
    last = order[len(order) - left :]
    return [*order, *islice(cycle(last), whole - left)] if left else list(order)


class TreeSampler(Sampler):
    """`tree_order`, another one every epoch, `filled` to a multiple of `whole`."""

    def __init__(self, dialogues: Sequence[str], prompts: Sequence[str], batch_size: int, seed: int, whole: int = 1):
        self.dialogues, self.prompts, self.batch_size, self.seed, self.epoch = dialogues, prompts, batch_size, seed, 0
        self.whole = whole

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer, so that a resumed training draws what an undisturbed one does."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.dialogues) // self.whole) * self.whole

    def __iter__(self) -> Iterator[int]:
        order = tree_order(self.dialogues, self.prompts, self.batch_size, self.seed * 1_000_003 + self.epoch)
        return iter(filled(order, self.whole))


class Epochs(TrainerCallback):
    """Tells a sampler its epoch: what wraps it in several processes does not hand that on when a training is resumed."""

    def __init__(self, sampler: TreeSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch + 1e-6))
