"""Replies to a batch of prompts. What prompts have in common is read once, and kept once while the replies are written."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from cso_lab.training.prefix_forest import build_prefix_trees
from cso_lab.training.tree_attention import dense_mask, tree_attention_enabled, tree_mask

Ids = list[int]
# Tokens of stems read in one pass: of a mask, the square of them is kept.
_READ_AT_ONCE = 2048
# Steps a cache has room for at first, and gets more room for whenever it is full.
_ROOM = 64
# Seconds of writing before it is shown how far it is.
_SILENT = 5
# Replies that have ended leave the grid when what is left of it is at most this share.
_WORTHWHILE = 0.75


@dataclass(frozen=True)
class Decoding:
    """How replies are written: `temperature` 0 is greedy; a reply ends at any of `ends` or after `max_new_tokens`."""

    max_new_tokens: int
    temperature: float
    ends: tuple[int, ...]


def reply_ids(model, prompts: Sequence[Ids], decoding: Decoding, openings: Sequence[Ids] = ()) -> list[Ids]:
    """Token ids of the reply to each prompt, without the token that ended it.

    Prompts of one dialogue, each extending the one before, are read in one pass over the longest, and what dialogues have in common
    (the system prompt) in one pass over it alone. With `openings`, every reply begins with one of these sequences.
    """
    stems, members = _stems([prompt[:-1] for prompt in prompts])
    replies: list[Ids] = [[] for _ in prompts]
    # Stems with about as many prompts each, so that little of a (stem, prompt) grid is empty.
    size_of = [(len(rows) - 1).bit_length() for rows in members]
    with torch.inference_mode():
        for size in sorted(set(size_of)):
            chosen = [i for i, its_size in enumerate(size_of) if its_size == size]
            group = _Group(model, [stems[i] for i in chosen], [[prompts[row] for row in members[i]] for i in chosen], decoding)
            written = group.write(openings)
            for row, reply in zip((row for i in chosen for row in members[i]), written, strict=True):
                replies[row] = _until_end(reply, decoding.ends)
    return replies


class _Group:
    """Replies under way to some prompts of every stem: a grid (stem, prompt) that grows by one token a cell and step.

    A cell's token sees its prompt, which is the beginning of its stem, and the tokens of its own cell.
    """

    def __init__(self, model, stems: list[Ids], prompts: list[list[Ids]], decoding: Decoding):
        self.model, self.decoding = model, decoding
        columns, device = max(map(len, prompts)), model.device
        # Empty cells repeat the last prompt of their stem; nobody reads what is written there.
        filled = [row + row[-1:] * (columns - len(row)) for row in prompts]
        self.lengths = torch.tensor([[len(prompt) for prompt in row] for row in filled], device=device)
        self.last = torch.tensor([[prompt[-1] for prompt in row] for row in filled], device=device)
        # Which reply is written in a cell, counted row by row; -1 where none is, or none any more.
        self.reply = torch.full_like(self.lengths, -1)
        real = torch.tensor([[i < len(row) for i in range(columns)] for row in prompts], device=device)
        self.reply[real] = torch.arange(int(real.sum()), device=device)
        self.width = max(map(len, stems))
        self.cache = _read_stems(model, stems, room=columns * min(decoding.max_new_tokens, _ROOM))

    def write(self, openings: Sequence[Ids]) -> list[Ids]:
        """The tokens of all replies, row by row; one that has ended ends with the token that ended it."""
        written: list[Ids] = [[] for _ in range(int((self.reply >= 0).sum()))]
        ends = torch.tensor(self.decoding.ends, device=self.model.device)
        tokens = self.last
        # A large batch is silent for long otherwise; whoever waits less sees nothing of it.
        for step in tqdm(range(self.decoding.max_new_tokens), desc="write", unit="token", leave=False, delay=_SILENT):
            under_way = self.reply >= 0
            scores = self._scores(tokens, step)[under_way].float()
            replies = [written[reply] for reply in self.reply[under_way].tolist()]
            _keep_to(openings, replies, scores)
            chosen = self._choose(scores)
            for reply, token in zip(replies, chosen.tolist(), strict=True):
                reply.append(token)
            tokens = tokens.masked_scatter(under_way, chosen)
            self.reply[under_way] = self.reply[under_way].masked_fill(torch.isin(chosen, ends), -1)
            if not (self.reply >= 0).any():
                break
            tokens = self._close_ranks(tokens, step + 1)
        return written

    def _close_ranks(self, tokens: torch.Tensor, steps: int) -> torch.Tensor:
        """Leave out cells whose reply has ended once that makes the grid much smaller; returns the `tokens` of those left."""
        under_way = self.reply >= 0
        stems = under_way.any(1).nonzero().squeeze(1)
        columns = int(under_way.sum(1).max())
        if len(stems) * columns > _WORTHWHILE * self.reply.numel():
            return tokens
        kept = under_way[stems].int().argsort(dim=1, descending=True, stable=True)[:, :columns]
        before = self.reply.shape[1]
        self.reply, self.lengths, tokens = (cells[stems].gather(1, kept) for cells in (self.reply, self.lengths, tokens))
        for layer in self.cache.layers:
            layer.keep(stems, kept, self.width, (steps, before))
        return tokens

    def _scores(self, tokens: torch.Tensor, step: int) -> torch.Tensor:
        """Logits of the next token of every cell, (stems, columns, vocabulary), after these at `step`."""
        position = self.lengths - 1 + step
        config = self.model.config.get_text_config()
        with tree_attention_enabled(config):
            return self.model(
                input_ids=tokens,
                position_ids=position,
                attention_mask=dense_mask(lambda window: self._seen(position, step, window), config, self.model.dtype),
                past_key_values=self.cache,
                use_cache=True,
            ).logits

    def _seen(self, position: torch.Tensor, step: int, window: int | None) -> torch.Tensor:
        """(stems, 1, columns, keys) bool: the keys a cell's token sees, of its stem and then of its own cell."""
        columns = position.shape[1]
        # Own keys stand step by step, in each step column by column.
        own = torch.arange(columns * (step + 1), device=position.device)
        column = torch.arange(columns, device=position.device)
        stem_at = torch.arange(self.width, device=position.device).expand(*position.shape, -1)
        own_at = (self.lengths - 1)[..., None] + own // columns
        seen = torch.cat(
            [stem_at < (self.lengths - 1)[..., None], (own % columns == column[:, None]).expand(len(position), -1, -1)],
            dim=-1,
        )
        if window is not None:
            seen = seen & (position[..., None] - torch.cat([stem_at, own_at], dim=-1) < window)
        return seen[:, None]

    def _choose(self, scores: torch.Tensor) -> torch.Tensor:
        if self.decoding.temperature == 0:
            return scores.argmax(-1)
        return torch.multinomial(torch.softmax(scores / self.decoding.temperature, dim=-1), 1).squeeze(1)


def _keep_to(openings: Sequence[Ids], written: Sequence[Ids], scores: torch.Tensor) -> None:
    """Leave, in the scores of replies whose opening is not complete, only tokens that continue one of the openings."""
    for row, start in enumerate(written):
        if any(tuple(opening) == tuple(start[: len(opening)]) for opening in openings):
            continue
        allowed = sorted({opening[len(start)] for opening in openings if list(opening[: len(start)]) == start})
        if allowed:
            kept = scores[row, allowed].clone()
            scores[row] = -torch.inf
            scores[row, allowed] = kept


def _read_stems(model, stems: Sequence[Ids], room: int) -> DynamicCache:
    """Keys and values of every stem, padded on the right to the longest, with room for `room` more tokens.

    What stems have in common is read once; the output layer, which prompts have no use for, is not computed.
    """
    config, width = model.config.get_text_config(), max(map(len, stems))
    parts, members = [], []  # of each part: keys and values by layer, (rows, heads, width, size)
    for rows, tree, paths in build_prefix_trees(stems, _READ_AT_ONCE, model.device):
        cache = DynamicCache()
        with tree_attention_enabled(config):
            model.base_model(
                input_ids=tree.tokens[None],
                position_ids=tree.depth[None],
                past_key_values=cache,
                use_cache=True,
                **tree_mask(tree.end, tree.depth, config, model.dtype),
            )
        # Padding repeats a stem's first token; nobody is shown its keys.
        place = torch.zeros(len(rows), width, dtype=torch.long, device=model.device)
        for row, path in enumerate(paths):
            place[row, : len(path)] = torch.from_numpy(path)
        members += rows
        parts.append([[states[0][:, place].transpose(0, 1) for states in (layer.keys, layer.values)] for layer in cache.layers])
    order = torch.tensor(members, device=model.device).argsort()
    roomy = DynamicCache()
    roomy.layers = [
        _RoomyLayer(*(torch.cat([part[layer][kind] for part in parts])[order] for kind in (0, 1)), room)
        for layer in range(len(parts[0]))
    ]
    return roomy


def _stems(sequences: Sequence[Ids]) -> tuple[list[Ids], list[list[int]]]:
    """The sequences that are no prefix of another one, and for each of them the indices of those that are its beginning."""
    stems: list[Ids] = []
    members: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda i: -len(sequences[i])):
        sequence = sequences[index]
        found = next((i for i, stem in enumerate(stems) if stem[: len(sequence)] == sequence), None)
        if found is None:
            stems.append(sequence)
            members.append([index])
        else:
            members[found].append(index)
    return stems, members


class _RoomyLayer(DynamicLayer):
    """Keys and values with room for those to come; a plain DynamicLayer copies all it holds at every token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.room = room
        self._set([keys, values])

    def update(self, key_states, value_states, *args, **kwargs):
        start, end = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if end > self.spaces[0].shape[2]:
            self._set([self.keys, self.values])
        for space, states in zip(self.spaces, (key_states, value_states), strict=True):
            space[:, :, start:end] = states
        self.keys, self.values = (space[:, :, :end] for space in self.spaces)
        return self.keys, self.values

    def keep(self, stems: torch.Tensor, columns: torch.Tensor, width: int, own: tuple[int, int]) -> None:
        """Keep these stems, (kept stems,), and of each these columns, (kept stems, kept columns); the keys of stems end at `width`, and
        `own` = (steps, columns) of the cells' own keys follow."""

        def kept(states: torch.Tensor) -> torch.Tensor:
            states = states[stems]
            of_cells = states[:, :, width:].unflatten(2, own)
            chosen = columns[:, None, None, :, None].expand(-1, of_cells.shape[1], own[0], -1, of_cells.shape[-1])
            return torch.cat([states[:, :, :width], of_cells.gather(3, chosen).flatten(2, 3)], dim=2)

        self._set([kept(self.keys), kept(self.values)])

    def _set(self, states: list[torch.Tensor]) -> None:
        self.spaces = [_with_room(held, self.room) for held in states]
        self.keys, self.values = (space[:, :, : states[0].shape[2]] for space in self.spaces)


def _with_room(states: torch.Tensor, room: int) -> torch.Tensor:
    batch, heads, length, width = states.shape
    space = states.new_empty(batch, heads, length + room, width)
    space[:, :, :length] = states
    return space


def _until_end(ids: Ids, ends: Sequence[int]) -> Ids:
    return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]
