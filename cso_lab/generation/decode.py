"""Replies to a batch of prompts. What prompts have in common is read once, and kept once while the replies are written."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from cso_lab.training.tree_attention import dense_mask, running

Ids = list[int]


@dataclass(frozen=True)
class Decoding:
    """How replies are written: `temperature` 0 is greedy; a reply ends at any of `ends` or after `max_new_tokens`."""

    max_new_tokens: int
    temperature: float
    ends: tuple[int, ...]


def reply_ids(model, prompts: Sequence[Ids], decoding: Decoding, openings: Sequence[Ids] = ()) -> list[Ids]:
    """Token ids of the reply to each prompt, without the token that ended it.

    Prompts of one dialogue, each extending the one before, are read in one pass over the longest, and what all prompts open
    with (the system prompt) in one pass over it alone. With `openings`, every reply begins with one of these sequences.
    """
    stems, members = _stems([prompt[:-1] for prompt in prompts])
    replies: list[Ids] = [[] for _ in prompts]
    # Stems with about as many prompts each, so that little of a (stem, prompt) grid is empty.
    sizes = {len(rows).bit_length() for rows in members}
    with torch.inference_mode():
        for size in sorted(sizes):
            chosen = [i for i, rows in enumerate(members) if len(rows).bit_length() == size]
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
        self.model, self.prompts, self.decoding = model, prompts, decoding
        self.columns = max(map(len, prompts))
        device = model.device
        # Empty cells repeat the last prompt of their stem; nobody reads what is written there.
        filled = [row + row[-1:] * (self.columns - len(row)) for row in prompts]
        self.lengths = torch.tensor([[len(prompt) for prompt in row] for row in filled], device=device)
        self.last = torch.tensor([[prompt[-1] for prompt in row] for row in filled], device=device)
        self.real = torch.tensor([[i < len(row) for i in range(self.columns)] for row in prompts], device=device)
        self.width = max(map(len, stems))
        self.cache = _read_stems(model, stems, room=self.columns * decoding.max_new_tokens)
        # Of a cell's own keys: the step they were written at is their place divided by the columns.
        self.own = torch.arange(self.columns * decoding.max_new_tokens, device=device)

    def write(self, openings: Sequence[Ids]) -> list[Ids]:
        """The tokens written in every real cell, row by row, what comes after an end included."""
        rows = int(self.real.sum())
        written: list[Ids] = [[] for _ in range(rows)]
        ended = torch.zeros(rows, dtype=torch.bool, device=self.model.device)
        ends = torch.tensor(self.decoding.ends, device=ended.device)
        tokens = self.last
        for step in range(self.decoding.max_new_tokens):
            scores = self._scores(tokens, step)[self.real].float()
            _keep_to(openings, written, scores)
            chosen = self._choose(scores)
            for reply, token in zip(written, chosen.tolist(), strict=True):
                reply.append(token)
            ended |= torch.isin(chosen, ends)
            if ended.all():
                break
            tokens = tokens.masked_scatter(self.real, chosen)
        return written

    def _scores(self, tokens: torch.Tensor, step: int) -> torch.Tensor:
        """Logits of the next token of every cell, (stems, columns, vocabulary), after these at `step`."""
        position = self.lengths - 1 + step
        config = self.model.config.get_text_config()
        with running(config):
            return self.model(
                input_ids=tokens,
                position_ids=position,
                attention_mask=dense_mask(lambda window: self._seen(position, step, window), config, self.model.dtype),
                past_key_values=self.cache,
                use_cache=True,
            ).logits

    def _seen(self, position: torch.Tensor, step: int, window: int | None) -> torch.Tensor:
        """(stems, 1, columns, keys) bool: the keys a cell's token sees, of its stem and then of its own cell."""
        own = self.own[: self.columns * (step + 1)]
        column = torch.arange(self.columns, device=own.device)
        stem_at = torch.arange(self.width, device=own.device).expand(*position.shape, -1)
        own_at = (self.lengths - 1)[..., None] + own // self.columns
        seen = torch.cat(
            [stem_at < (self.lengths - 1)[..., None], (own % self.columns == column[:, None]).expand(len(position), -1, -1)],
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
    """Keys and values of every stem, padded on the right to the longest, with room for `room` more tokens."""
    shared = _common_prefix(stems)
    cache = DynamicCache()
    if shared:
        _read(model, [shared], cache)
        cache = DynamicCache(
            [(layer.keys.expand(len(stems), -1, -1, -1), layer.values.expand(len(stems), -1, -1, -1)) for layer in cache.layers]
        )
    rest = [stem[len(shared) :] for stem in stems]
    if longest := max(map(len, rest)):
        # Padding on the right: nothing before it sees it, and nobody is shown its keys.
        _read(model, [stem + [0] * (longest - len(stem)) for stem in rest], cache)
    roomy = DynamicCache()
    roomy.layers = [_RoomyLayer(layer.keys, layer.values, room) for layer in cache.layers]
    return roomy


def _read(model, rows: list[Ids], cache: DynamicCache) -> None:
    """Add `rows` to `cache`; the output layer, which prompts have no use for, is not computed."""
    model.base_model(input_ids=torch.tensor(rows, device=model.device), past_key_values=cache, use_cache=True)


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


def _common_prefix(sequences: Sequence[Ids]) -> Ids:
    first, last = min(sequences), max(sequences)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:shared]


class _RoomyLayer(DynamicLayer):
    """Keys and values with room for those to come; a plain DynamicLayer copies all it holds at every token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.spaces = [_with_room(keys, room), _with_room(values, room)]
        self.keys, self.values = (space[:, :, : keys.shape[2]] for space in self.spaces)

    def update(self, key_states, value_states, *args, **kwargs):
        start, end = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        for space, states in zip(self.spaces, (key_states, value_states), strict=True):
            space[:, :, start:end] = states
        self.keys, self.values = (space[:, :, :end] for space in self.spaces)
        return self.keys, self.values


def _with_room(states: torch.Tensor, room: int) -> torch.Tensor:
    batch, heads, length, width = states.shape
    space = states.new_empty(batch, heads, length + room, width)
    space[:, :, :length] = states
    return space


def _until_end(ids: Ids, ends: Sequence[int]) -> Ids:
    return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]
