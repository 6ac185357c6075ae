"""The order in which rows are trained on: rows of one dialogue tree together, in each batch and in what a process takes of it."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice, pairwise

import numpy as np
from torch.utils.data import Sampler
from transformers import TrainerCallback

from cso_lab.training.prefix_sharing import common_prefix
from cso_lab.training.rows import RESPONSES


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


def _taking_turns(batch: Sequence[tuple]) -> list[int]:
    """The rows of (bundle, row) with one of each bundle in turn as long as it has any."""
    seen: dict = defaultdict(int)
    turns = []
    for bundle, row in batch:
        turns.append((seen[bundle], bundle, row))
        seen[bundle] += 1
    return [row for _, _, row in sorted(turns)]


class Dealer:
    """Deals the rows of a batch into shares of `share` rows, each of them what one process takes at once.

    A share holds whole bundles (the rows of one dialogue in the batch) as far as they fit, so that sharing a prefix does not end where
    processes part; who gets a bundle is whoever has the fewest distinct characters so far, which are in proportion to the tokens to be
    computed. All shares have the same number of rows: the trainers average over the rows of a process and then over processes. What a
    batch consists of does not depend on its shares. With `alternate`, for KTO, a bundle fills at most half a share, and within a share
    bundles take turns: the KL term is estimated on the response of a row's neighbour.
    """

    def __init__(self, rows: Sequence[Mapping], batch_size: int, share: int, alternate: bool):
        self.batch_size, self.share, self.alternate = batch_size, share, alternate
        self.dialogues = [row["dialogue"] for row in rows]
        self.texts = [[(row["prompt"] + row[field]).encode() for field in RESPONSES if field in row] for row in rows]

    def __call__(self, order: Sequence[int]) -> list[int]:
        """`order`, in which the rows of every batch follow share by share."""
        return [
            row for first in range(0, len(order), self.batch_size) for row in self._deal(order[first : first + self.batch_size])
        ]

    def _deal(self, batch: Sequence[int]) -> list[int]:
        if len(batch) <= self.share:
            return list(batch)
        rooms = [min(self.share, len(batch) - first) for first in range(0, len(batch), self.share)]
        shares: list[list[int]] = [[] for _ in rooms]
        sizes = [0] * len(rooms)
        pieces = self._pieces(batch)
        while pieces:
            piece = pieces.pop(0)
            free = [room - len(rows) for room, rows in zip(rooms, shares, strict=True)]
            fits = [i for i in range(len(rooms)) if free[i] >= len(piece)]
            if fits:
                chosen = min(fits, key=lambda i: (self._meets(shares[i], piece), sizes[i]))
            else:
                chosen = max(range(len(rooms)), key=lambda i: free[i])
                pieces.insert(0, piece[free[chosen] :])
                piece = piece[: free[chosen]]
            shares[chosen] += piece
            sizes[chosen] += self._size(piece)
        if self.alternate:
            shares = [_taking_turns([(self.dialogues[row], row) for row in rows]) for rows in shares]
        return [row for rows in shares for row in rows]

    def _pieces(self, batch: Sequence[int]) -> list[list[int]]:
        """The bundles of a batch, those that are too long cut between neighbours; those with most rows first."""
        longest = max(1, self.share // 2) if self.alternate else self.share
        bundles = defaultdict(list)
        for row in batch:
            bundles[self.dialogues[row]].append(row)
        pieces = []
        for rows in bundles.values():
            rows.sort(key=lambda row: self.texts[row])
            pieces += [rows[first : first + longest] for first in range(0, len(rows), longest)]
        return sorted(pieces, key=len, reverse=True)

    def _meets(self, rows: Sequence[int], piece: Sequence[int]) -> bool:
        """Whether rows that are to have neighbours of other dialogues would be among rows of their own."""
        return self.alternate and any(self.dialogues[row] == self.dialogues[piece[0]] for row in rows)

    def _size(self, piece: Sequence[int]) -> int:
        """Distinct characters: those of a prefix that rows have in common count once."""
        texts = sorted(text for row in piece for text in self.texts[row])
        arrays = [np.frombuffer(text, dtype=np.uint8) for text in texts]
        return sum(map(len, arrays)) - sum(common_prefix(a, b) for a, b in pairwise(arrays))


def filled(order: Sequence, whole: int) -> list:
    """`order` with as many of its last rows again as it takes for `whole` to divide its length.

    Several processes take `whole` rows at once. Left alone they would fill up an epoch's last step with the epoch's first rows; so it has
    the rows that one process has in it.
    """
    left = len(order) % whole
    last = order[len(order) - left :]
    return [*order, *islice(cycle(last), whole - left)] if left else list(order)


class TreeSampler(Sampler):
    """`tree_order`, another one every epoch, `filled` to a multiple of `whole` and dealt into shares by `deal`.

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
        return iter([self.position[row] for row in self.deal(filled(order, self.whole))])


class Epochs(TrainerCallback):
    """Tells a sampler its epoch: what wraps it in several processes does not hand that on when a training is resumed."""

    def __init__(self, sampler: TreeSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch + 1e-6))
