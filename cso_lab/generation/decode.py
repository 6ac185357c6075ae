"""Replies to a batch of prompts, where what prompts have in common is read once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

Ids = list[int]


@dataclass(frozen=True)
class Decoding:
    """How replies are written: `temperature` 0 is greedy; a reply ends at any of `ends` or after `max_new_tokens`."""

    max_new_tokens: int
    temperature: float
    ends: tuple[int, ...]
    pad: int


def reply_ids(model, prompts: Sequence[Ids], decoding: Decoding, openings: Sequence[Ids] = ()) -> list[Ids]:
    """Token ids of the reply to each prompt, without the token that ended it.

    Prompts of one dialogue, each extending the one before, are read in one pass over the longest, and what all prompts open
    with (the system prompt) in one pass over it alone. With `openings`, every reply begins with one of these sequences.
    """
    sampling = {"temperature": decoding.temperature, "top_k": 0, "top_p": 1.0} if decoding.temperature > 0 else {}
    # In place of the model's own, whose sampling and penalties would fill what a configuration given to generate() leaves open.
    model.generation_config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=bool(sampling),
        eos_token_id=list(decoding.ends),
        pad_token_id=decoding.pad,
        **sampling,
    )
    width = max(len(prompt) for prompt in prompts)
    padded = torch.tensor([[decoding.pad] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    constraint = LogitsProcessorList([_Opening(openings, width)] if openings else [])
    with torch.inference_mode():
        cache = _read_prompts(model, prompts, room=decoding.max_new_tokens)
        written = model.generate(padded, attention_mask=mask, past_key_values=cache, logits_processor=constraint)
    return [_until_end(row, decoding.ends) for row in written[:, width:].tolist()]


def _read_prompts(model, prompts: Sequence[Ids], room: int) -> DynamicCache:
    """Keys and values of every prompt but its last token, left-padded: `DynamicCache` over (batch, heads, longest - 1, width).

    There is room for `room` more tokens.
    """
    stems, stem_of = _stems([prompt[:-1] for prompt in prompts])
    shared = _common_prefix(stems)
    cache = DynamicCache()
    if shared:
        _read(model, [shared], cache)
        cache = DynamicCache(
            [(layer.keys.expand(len(stems), -1, -1, -1), layer.values.expand(len(stems), -1, -1, -1)) for layer in cache.layers]
        )
    rest = [stem[len(shared) :] for stem in stems]
    if longest := max(map(len, rest)):
        # Padding on the right: nothing before it sees it, and its keys are not taken over below.
        _read(model, [stem + [0] * (longest - len(stem)) for stem in rest], cache)

    lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=model.device)
    width = int(lengths.max())
    stem_index = torch.tensor(stem_of, device=model.device)[:, None]
    position = (torch.arange(width, device=model.device)[None] - (width - lengths)[:, None]).clamp(min=0)

    def taken(states):
        return states[stem_index, :, position].transpose(1, 2)

    prompts_read = DynamicCache()
    prompts_read.layers = [_RoomyLayer(taken(layer.keys), taken(layer.values), room + 1) for layer in cache.layers]
    return prompts_read


def _read(model, rows: list[Ids], cache: DynamicCache) -> None:
    """Add `rows` to `cache`; the output layer, which prompts have no use for, is not computed."""
    model.base_model(input_ids=torch.tensor(rows, device=model.device), past_key_values=cache, use_cache=True)


def _stems(sequences: Sequence[Ids]) -> tuple[list[Ids], list[int]]:
    """The sequences that are no prefix of another one, and for each sequence the index of one that it is a prefix of."""
    stems: list[Ids] = []
    stem_of = [0] * len(sequences)
    for index in sorted(range(len(sequences)), key=lambda i: -len(sequences[i])):
        sequence = sequences[index]
        found = next((i for i, stem in enumerate(stems) if stem[: len(sequence)] == sequence), None)
        if found is None:
            stems.append(sequence)
            found = len(stems) - 1
        stem_of[index] = found
    return stems, stem_of


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


class _Opening(LogitsProcessor):
    """Allows, at the start of every reply, only tokens that continue one of the openings; after it, everything."""

    def __init__(self, openings: Sequence[Ids], prompt_width: int):
        self.openings = [tuple(opening) for opening in openings]
        self.prompt_width = prompt_width
        self.longest = max(map(len, openings))

    def __call__(self, input_ids, scores):
        written = input_ids.shape[1] - self.prompt_width
        if written >= self.longest:
            return scores
        for row, start in enumerate(input_ids[:, self.prompt_width :].tolist()):
            allowed = self._continuations(tuple(start))
            if allowed is not None:
                blocked = torch.ones_like(scores[row], dtype=torch.bool)
                blocked[allowed] = False
                scores[row] = scores[row].masked_fill(blocked, -torch.inf)
        return scores

    def _continuations(self, start: tuple[int, ...]) -> list[int] | None:
        """The tokens that may follow, or None when an opening is complete."""
        if any(opening == start[: len(opening)] for opening in self.openings):
            return None
        return sorted({opening[len(start)] for opening in self.openings if opening[: len(start)] == start})
