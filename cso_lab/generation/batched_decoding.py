"""Decodes replies to a batch of prompts; a prefix that prompts have in common is computed once and held in the cache once."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from cso_lab.generation.openings import PrefixTable, constrain
from cso_lab.training.prefix_forest import build_prefix_trees
from cso_lab.training.tree_attention import dense_mask, tree_attention_enabled, tree_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Ids = list[int]
# Keys and values of every layer, (rows, heads, tokens, head size) each.
States = list[tuple[torch.Tensor, torch.Tensor]]
# Prompt tokens computed in one pass; the memory of its mask grows with their square.
_TOKENS_PER_PASS = 2048
# The cache is allocated for this many decoding steps in advance, and again whenever they are used up.
_RESERVED_STEPS = 64
# Seconds after which the progress bar is shown.
_PROGRESS_DELAY = 5
# Finished replies leave the grid once the smaller grid has at most this fraction of its cells; copying the cache takes time too.
_SHRINK_FRACTION = 0.75


@dataclass(frozen=True)
class Decoding:
    """How replies are decoded: greedily if `temperature` is 0; a reply ends at any token of `ends` or after `max_new_tokens`."""

    max_new_tokens: int
    temperature: float
    ends: tuple[int, ...]


def reply_ids(
    model: "PreTrainedModel",
    prompts: Sequence[Ids],
    decoding: Decoding,
    openings: Sequence[Ids] = (),
    carried: "CarriedContexts | None" = None,
    by_likelihood: bool = False,
    forced: Sequence[int] = (),
    seeds: Sequence[int] = (),
    keep_end: bool = False,
) -> list[Ids]:
    """Returns the token ids of the reply to each prompt, without the token that ended it unless `keep_end`.

    Prompts of one dialogue, each of which extends the one before, are computed in one pass over the longest, and what dialogues have in
    common (the system prompt) is computed once. With `openings`, every reply begins with one of these token sequences: each token is the
    best of those that continue one; or, `by_likelihood`, an opening is chosen as a whole, by its probability after the prompt; or it
    is the one with the index `forced` says for each prompt. With `seeds`, one a prompt, a sampled reply depends on its own seed and not on
    the other replies of the call. With `carried`, what a prompt has in common with one of the call before is not computed again.
    """
    replies: list[Ids] = [[] for _ in prompts]
    with torch.inference_mode():
        for rows, grid in _grids(model, prompts, decoding, carried):
            if seeds:
                grid.sample_by([seeds[row] for row in rows])
            chosen = grid.choose_openings(openings) if by_likelihood else [forced[row] for row in rows] if forced else None
            allowed = [openings] * len(rows) if chosen is None else [[openings[index]] for index in chosen]
            for row, reply in zip(rows, grid.decode(allowed), strict=True):
                replies[row] = reply if keep_end else _until_end(reply, decoding.ends)
    return replies


def opening_log_probabilities(model: "PreTrainedModel", prompts: Sequence[Ids], openings: Sequence[Ids]) -> list[list[float]]:
    """Returns for each prompt the log-probability of each of `openings` (token ids, none empty) after it, at temperature 1."""
    found: list[list[float]] = [[] for _ in prompts]
    with torch.inference_mode():
        for rows, grid in _grids(model, prompts, Decoding(max_new_tokens=0, temperature=0, ends=())):
            for row, scores in zip(rows, grid.opening_scores(openings).tolist(), strict=True):
                found[row] = scores
    return found


def _grids(
    model: "PreTrainedModel", prompts: Sequence[Ids], decoding: Decoding, carried: "CarriedContexts | None" = None
) -> "Iterator[tuple[list[int], _ReplyGrid]]":
    """Yields grids of prompts whose contexts are computed, each with the indices of its prompts."""
    contexts, members = _contexts([prompt[:-1] for prompt in prompts])
    if carried is not None:
        carried.advance(model, contexts)
    for chosen in _alike(members):
        states = carried.rows(chosen) if carried is not None else _context_states(model, [contexts[i] for i in chosen])
        grid = _ReplyGrid(model, states, [[prompts[row] for row in members[i]] for i in chosen], decoding)
        yield [row for i in chosen for row in members[i]], grid


def _alike(members: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yields the indices of contexts with about as many prompts each, which go into one grid: so few of its cells are empty."""
    size_of = [(len(rows) - 1).bit_length() for rows in members]
    for size in sorted(set(size_of)):
        yield [i for i, context_size in enumerate(size_of) if context_size == size]


def planned_tokens(prompts: Sequence[Ids], max_new_tokens: int) -> tuple[int, int]:
    """Returns (prompt tokens that `reply_ids` computes, tokens that its largest cache holds at most), found without a model."""
    contexts, members = _contexts([prompt[:-1] for prompt in prompts])
    computed, held = len(prompts), 0  # each prompt's last token is computed with its reply
    for chosen in _alike(members):
        alike = [contexts[i] for i in chosen]
        trees = build_prefix_trees(alike, _TOKENS_PER_PASS, torch.device("cpu"))
        computed += sum(len(tree) for _, tree, _ in trees)
        columns = max(len(members[i]) for i in chosen)
        held = max(held, len(chosen) * (max(map(len, alike)) + columns * max_new_tokens))
    return computed, held


class _ReplyGrid:
    """The unfinished replies to the prompts of several contexts: a grid (context, prompt) that grows by one token a cell and step.

    The token of a cell attends to its prompt, which is a prefix of its context, and to the tokens of its own cell.
    """

    def __init__(self, model: "PreTrainedModel", contexts: States, prompts: list[list[Ids]], decoding: Decoding):
        self.model, self.decoding = model, decoding
        self.samplers: list[random.Random] | None = None
        columns, device = max(map(len, prompts)), model.device
        # Empty cells repeat the last prompt of their context; what is decoded there is not used.
        padded = [row + row[-1:] * (columns - len(row)) for row in prompts]
        self.lengths = torch.tensor([[len(prompt) for prompt in row] for row in padded], device=device)
        self.last = torch.tensor([[prompt[-1] for prompt in row] for row in padded], device=device)
        # The index of the reply that is decoded in a cell, counted row by row; -1 in empty cells and finished ones.
        self.reply = torch.full_like(self.lengths, -1)
        real = torch.tensor([[i < len(row) for i in range(columns)] for row in prompts], device=device)
        self.reply[real] = torch.arange(int(real.sum()), device=device)
        self.context_length = contexts[0][0].shape[2]
        reserved = columns * min(decoding.max_new_tokens, _RESERVED_STEPS)
        self.cache = DynamicCache()
        self.cache.layers = [_PreallocatedLayer(*states, reserved) for states in contexts]

    def sample_by(self, seeds: Sequence[int]) -> None:
        """Makes every reply be sampled by the numbers that its own seed gives; `seeds` are row by row."""
        self.samplers = [random.Random(seed) for seed in seeds]

    def choose_openings(self, openings: Sequence[Ids]) -> list[int]:
        """Returns for every reply, row by row, the index of the opening that is chosen by its log-probability after the prompt."""
        scores = self.opening_scores(openings)
        return self._choose(scores, range(len(scores))).tolist()

    def opening_scores(self, openings: Sequence[Ids]) -> torch.Tensor:
        """Returns the log-probability of every opening after the prompt of every reply, row by row: (replies, openings).

        It takes one pass, in which all tokens that some opening has before its last one follow the prompt of their cell; they are removed
        from the cache afterwards.
        """
        table = PrefixTable(openings)
        depth = torch.tensor(table.depth, device=self.model.device)
        tokens = torch.tensor(table.last_tokens, device=self.model.device).repeat(*self.last.shape, 1)
        tokens[..., 0] = self.last
        position = (self.lengths - 1)[..., None] + depth
        follows = torch.tensor(table.follows, device=self.model.device)
        config = self.model.config.get_text_config()
        with tree_attention_enabled(config):
            logits = self.model(
                input_ids=tokens.flatten(1),
                position_ids=position.flatten(1),
                attention_mask=dense_mask(lambda window: self._in_table(position, follows, window), config, self.model.dtype),
                past_key_values=self.cache,
                use_cache=True,
            ).logits
        for layer in self.cache.layers:
            layer.crop(-tokens[0].numel())
        return table.log_probabilities(logits.unflatten(1, position.shape[1:])[self.reply >= 0].float())

    def _in_table(self, position: torch.Tensor, follows: torch.Tensor, window: int | None) -> torch.Tensor:
        """Returns (contexts, 1, tokens, keys) bool: whether a token of a cell's openings attends to a key of its context or of a cell."""
        columns = position.shape[1]
        query, context_position = position.flatten(1), torch.arange(self.context_length, device=position.device)
        in_prompt = context_position < (self.lengths - 1).repeat_interleave(len(follows), dim=1)[..., None]
        # Block by block: a cell's tokens attend to those of the same cell that they follow.
        in_own_cell = torch.block_diag(*[follows.int()] * columns).bool().expand(len(position), -1, -1)
        attends = torch.cat([in_prompt, in_own_cell], dim=-1)
        if window is not None:
            key = torch.cat([context_position.expand(len(position), -1), query], dim=-1)
            attends = attends & (query[..., None] - key[:, None] < window)
        return attends[:, None]

    def decode(self, openings: Sequence[Sequence[Ids]]) -> list[Ids]:
        """Returns the tokens of all replies, row by row, with the token that ended each of them.

        A reply begins with one of its `openings`, if it has any.
        """
        replies: list[Ids] = [[] for _ in range(int((self.reply >= 0).sum()))]
        ends = torch.tensor(self.decoding.ends, device=self.model.device)
        tokens = self.last
        for step in tqdm(range(self.decoding.max_new_tokens), desc="write", unit="token", leave=False, delay=_PROGRESS_DELAY):
            unfinished = self.reply >= 0
            scores = self._scores(tokens, step)[unfinished].float()
            indices = self.reply[unfinished].tolist()
            unfinished_replies = [replies[index] for index in indices]
            constrain([openings[index] for index in indices], unfinished_replies, scores)
            chosen = self._choose(scores, indices)
            for reply, token in zip(unfinished_replies, chosen.tolist(), strict=True):
                reply.append(token)
            tokens = tokens.masked_scatter(unfinished, chosen)
            self.reply[unfinished] = self.reply[unfinished].masked_fill(torch.isin(chosen, ends), -1)
            if not (self.reply >= 0).any():
                break
            tokens = self._drop_finished(tokens, step + 1)
        return replies

    def _drop_finished(self, tokens: torch.Tensor, steps: int) -> torch.Tensor:
        """Removes finished cells if the grid becomes much smaller; returns the `tokens` of the cells that are kept."""
        unfinished = self.reply >= 0
        contexts = unfinished.any(1).nonzero().squeeze(1)
        columns = int(unfinished.sum(1).max())
        if len(contexts) * columns > _SHRINK_FRACTION * self.reply.numel():
            return tokens
        kept = unfinished[contexts].int().argsort(dim=1, descending=True, stable=True)[:, :columns]
        columns_before = self.reply.shape[1]
        self.reply, self.lengths, tokens = (cells[contexts].gather(1, kept) for cells in (self.reply, self.lengths, tokens))
        for layer in self.cache.layers:
            layer.keep(contexts, kept, self.context_length, (steps, columns_before))
        return tokens

    def _scores(self, tokens: torch.Tensor, step: int) -> torch.Tensor:
        """Returns the logits of every cell's next token, (contexts, columns, vocabulary), given its last tokens at `step`."""
        position = self.lengths - 1 + step
        config = self.model.config.get_text_config()
        with tree_attention_enabled(config):
            return self.model(
                input_ids=tokens,
                position_ids=position,
                attention_mask=dense_mask(lambda window: self._attends(position, step, window), config, self.model.dtype),
                past_key_values=self.cache,
                use_cache=True,
            ).logits

    def _attends(self, position: torch.Tensor, step: int, window: int | None) -> torch.Tensor:
        """Returns (contexts, 1, columns, keys) bool: whether a cell's token attends to a key of its context or of a cell."""
        columns = position.shape[1]
        # The keys of cells follow those of the context, step by step and in each step column by column.
        cell_key = torch.arange(columns * (step + 1), device=position.device)
        column = torch.arange(columns, device=position.device)
        context_position = torch.arange(self.context_length, device=position.device).expand(*position.shape, -1)
        cell_position = (self.lengths - 1)[..., None] + cell_key // columns
        in_prompt = context_position < (self.lengths - 1)[..., None]
        in_own_cell = (cell_key % columns == column[:, None]).expand(len(position), -1, -1)
        attends = torch.cat([in_prompt, in_own_cell], dim=-1)
        if window is not None:
            attends = attends & (position[..., None] - torch.cat([context_position, cell_position], dim=-1) < window)
        return attends[:, None]

    def _choose(self, scores: torch.Tensor, indices: Sequence[int]) -> torch.Tensor:
        """Returns the column chosen in every row of `scores`; the rows are those of the replies `indices`."""
        if self.decoding.temperature == 0:
            return scores.argmax(-1)
        probabilities = torch.softmax(scores / self.decoding.temperature, dim=-1)
        if self.samplers is None:
            return torch.multinomial(probabilities, 1).squeeze(1)
        cumulative = probabilities.double().cumsum(-1)
        drawn = torch.tensor([self.samplers[index].random() for index in indices], dtype=torch.double, device=scores.device)
        # The first column whose cumulative probability is above the number, so that one of probability 0 is never chosen.
        return (
            torch.searchsorted(cumulative, drawn[:, None] * cumulative[:, -1:], right=True)
            .squeeze(1)
            .clamp(max=scores.shape[1] - 1)
        )


class CarriedContexts:
    """The keys and values of the contexts of one call of `reply_ids`, which the contexts of the next call continue.

    A conversation's next prompt is its last one, the reply and what is said to it. Each context is matched with the one of the call before
    that it shares the longest beginning with, and only the tokens after it are computed. So a prompt whose oldest turns were dropped,
    or whose reply is spelled with other tokens than it was written with, is right too.
    """

    def __init__(self):
        self._contexts: list[Ids] = []
        self._states: States = []

    def advance(self, model: "PreTrainedModel", contexts: Sequence[Ids]) -> None:
        """Computes the keys and values of `contexts`, which replace those of the call before."""
        if self._states:
            self._states = self._continued(model, contexts)
        else:
            self._states = _context_states(model, contexts)
        self._contexts = list(contexts)

    def rows(self, chosen: Sequence[int]) -> States:
        """Returns the keys and values of these contexts, padded on the right to the longest of them."""
        length = max(len(self._contexts[row]) for row in chosen)
        index = torch.tensor(chosen, device=self._states[0][0].device)
        return [(keys[index, :, :length], values[index, :, :length]) for keys, values in self._states]

    def _continued(self, model: "PreTrainedModel", contexts: Sequence[Ids]) -> States:
        sources, common = self._matches(contexts)
        new = [len(context) - kept for context, kept in zip(contexts, common, strict=True)]
        # Contexts with about as many new tokens go into one pass, since each is padded to the longest of its pass.
        sizes = [max(count - 1, 0).bit_length() for count in new]
        length, parts, order = max(map(len, contexts)), [], []
        for size in sorted(set(sizes)):
            members = [row for row, own in enumerate(sizes) if own == size]
            # The memory of a pass grows with its rows, its new tokens and the context.
            at_once = max(1, _TOKENS_PER_PASS // max(new[row] for row in members)) if size else len(members)
            for first in range(0, len(members), at_once):
                rows = members[first : first + at_once]
                order += rows
                parts.append(self._extend(model, [contexts[row] for row in rows], *_at(rows, sources, common), length))
        index = torch.tensor(order, device=model.device).argsort()
        return [
            tuple(torch.cat([part[layer][kind] for part in parts])[index] for kind in (0, 1)) for layer in range(len(parts[0]))
        ]

    def _extend(
        self, model: "PreTrainedModel", contexts: Sequence[Ids], sources: Sequence[int], common: Sequence[int], length: int
    ) -> States:
        """Returns the keys and values of contexts that share their first `common` tokens with the held contexts `sources`."""
        device = model.device
        new = [context[kept:] for context, kept in zip(contexts, common, strict=True)]
        past, width = max(common), max(map(len, new))
        source, kept = torch.tensor(sources, device=device), torch.tensor(common, device=device)
        states = [(keys[source, :, :past], values[source, :, :past]) for keys, values in self._states]
        if width:
            cache = DynamicCache()
            cache.layers = [_PreallocatedLayer(*layer, width) for layer in states]
            tokens = torch.zeros(len(new), width, dtype=torch.long, device=device)
            for row, ids in enumerate(new):
                tokens[row, : len(ids)] = torch.tensor(ids, device=device)
            config = model.config.get_text_config()
            position = kept[:, None] + torch.arange(width, device=device)
            with tree_attention_enabled(config):
                model.base_model(
                    input_ids=tokens,
                    position_ids=position,
                    attention_mask=dense_mask(lambda window: _follows(kept, past, width, window), config, model.dtype),
                    past_key_values=cache,
                    use_cache=True,
                )
            states = [(layer.keys, layer.values) for layer in cache.layers]
        # The kept tokens, then the new ones. Padding repeats the first key; no token attends to it.
        place = torch.arange(length, device=device)
        index = torch.where(place < kept[:, None], place, place - kept[:, None] + past)
        ends = torch.tensor([len(context) for context in contexts], device=device)
        index = index.masked_fill(place >= ends[:, None], 0)
        return [tuple(_gather(held, index) for held in layer) for layer in states]

    def _matches(self, contexts: Sequence[Ids]) -> tuple[list[int], list[int]]:
        """Returns for each context the held one that it shares the longest beginning with, and how many tokens that has."""
        longest = max(max(map(len, self._contexts)), max(map(len, contexts)))
        held = torch.full((len(self._contexts), longest), -1)
        for row, ids in enumerate(self._contexts):
            held[row, : len(ids)] = torch.tensor(ids)
        sources, common = [], []
        for ids in contexts:
            same = (held[:, : len(ids)] == torch.tensor(ids)).int().cumprod(dim=1).sum(dim=1)
            sources.append(int(same.argmax()))
            common.append(int(same.max()))
        return sources, common


def _at(rows: Sequence[int], *columns: Sequence) -> list[list]:
    return [[column[row] for row in rows] for column in columns]


def _follows(kept: torch.Tensor, past: int, width: int, window: int | None) -> torch.Tensor:
    """Returns (rows, 1, width, past + width) bool: whether a new token attends to a key; of the past keys `kept` belong to its row."""
    step = torch.arange(width, device=kept.device)
    held = torch.arange(past, device=kept.device).expand(len(kept), width, past)
    in_past = held < kept[:, None, None]
    in_new = (step[None, :] <= step[:, None]).expand(len(kept), -1, -1)
    attends = torch.cat([in_past, in_new], dim=-1)
    if window is not None:
        position = kept[:, None] + step
        keys = torch.cat([held[:, 0], position], dim=-1)
        attends = attends & (position[:, :, None] - keys[:, None, :] < window)
    return attends[:, None]


def _gather(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Returns the states, (rows, heads, tokens, size), at the token indices (rows, length) of each row."""
    return states.gather(2, index[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]))


def _context_states(model: "PreTrainedModel", contexts: Sequence[Ids]) -> States:
    """Returns the keys and values of every context by layer, padded on the right to the longest, (contexts, heads, length, size) each.

    A prefix that contexts have in common is computed once. The output layer is not computed.
    """
    config, length = model.config.get_text_config(), max(map(len, contexts))
    parts, members = [], []  # of each part: keys and values by layer, (rows, heads, length, head size)
    for rows, tree, paths in build_prefix_trees(contexts, _TOKENS_PER_PASS, model.device):
        cache = DynamicCache()
        with tree_attention_enabled(config):
            model.base_model(
                input_ids=tree.tokens[None],
                position_ids=tree.depth[None],
                past_key_values=cache,
                use_cache=True,
                **tree_mask(tree.end, tree.depth, config, model.dtype),
            )
        # Padding repeats a context's first token; no token attends to it.
        index = torch.zeros(len(rows), length, dtype=torch.long, device=model.device)
        for row, path in enumerate(paths):
            index[row, : len(path)] = torch.from_numpy(path)
        members += rows
        parts.append([[states[0][:, index].transpose(0, 1) for states in (layer.keys, layer.values)] for layer in cache.layers])
    order = torch.tensor(members, device=model.device).argsort()
    return [tuple(torch.cat([part[layer][kind] for part in parts])[order] for kind in (0, 1)) for layer in range(len(parts[0]))]


def _contexts(sequences: Sequence[Ids]) -> tuple[list[Ids], list[list[int]]]:
    """Returns the sequences that are no prefix of another one, and for each of them the indices of its prefixes among `sequences`."""
    contexts: list[Ids] = []
    members: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda i: -len(sequences[i])):
        sequence = sequences[index]
        match = next((i for i, context in enumerate(contexts) if context[: len(sequence)] == sequence), None)
        if match is None:
            contexts.append(sequence)
            members.append([index])
        else:
            members[match].append(index)
    return contexts, members


class _PreallocatedLayer(DynamicLayer):
    """Keys and values in buffers with space for `reserved` more tokens; a plain DynamicLayer copies all it holds at every token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, reserved: int):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.reserved = reserved
        self._allocate([keys, values])

    def update(self, key_states, value_states, *args, **kwargs):
        """Appends keys and values, (batch, heads, tokens, head size); returns all of them."""
        start, end = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if end > self.buffers[0].shape[2]:
            self.reserved = max(self.reserved, key_states.shape[2])
            self._allocate([self.keys, self.values])
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def keep(self, contexts: torch.Tensor, columns: torch.Tensor, context_length: int, cells: tuple[int, int]) -> None:
        """Keeps these contexts, (kept contexts,), and of each these columns, (kept contexts, kept columns).

        The first `context_length` keys are the context's; those of the cells follow, `cells` = (steps, columns) of them.
        """

        def kept(states: torch.Tensor) -> torch.Tensor:
            states = states[contexts]
            of_cells = states[:, :, context_length:].unflatten(2, cells)
            chosen = columns[:, None, None, :, None].expand(-1, of_cells.shape[1], cells[0], -1, of_cells.shape[-1])
            return torch.cat([states[:, :, :context_length], of_cells.gather(3, chosen).flatten(2, 3)], dim=2)

        self._allocate([kept(self.keys), kept(self.values)])

    def _allocate(self, states: list[torch.Tensor]) -> None:
        self.buffers = [_with_reserve(held, self.reserved) for held in states]
        self.keys, self.values = (buffer[:, :, : states[0].shape[2]] for buffer in self.buffers)


def _with_reserve(states: torch.Tensor, reserved: int) -> torch.Tensor:
    batch, heads, length, size = states.shape
    buffer = states.new_empty(batch, heads, length + reserved, size)
    buffer[:, :, :length] = states
    return buffer


def _until_end(ids: Ids, ends: Sequence[int]) -> Ids:
    return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]
