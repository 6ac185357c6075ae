"""Replies to the sample's test turns with their shared history read once, without that, and by transformers' own batched `generate`.

    python -m experiments.benchmarks.generation [--turns 96] [--repeats 3] [--json] [Hydra overrides]

All write the same number of tokens greedily, from the same weights in the same dtype. `generate` runs left-padded, at its fastest
batch of 8, 16 and 32 turns, found on the first 32; the sides then alternate over all, and medians are compared.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

from experiments.benchmarks.steps import config

PLAIN_BATCHES = (8, 16, 32)


def test_prompts(cfg, turns: int | None) -> list[list[int]]:
    """Token ids of what the model is shown before each supporter turn of the test dialogues."""
    from cso_lab.core.records import prompt_messages
    from cso_lab.core.strategies import strategy_set
    from cso_lab.corpora import divide
    from cso_lab.training.backbone import load_tokenizer
    from cso_lab.training.chat_format import ChatFormat

    chat, strategies = ChatFormat(load_tokenizer(cfg)), strategy_set(cfg.data.strategies)
    _, _, test = divide(cfg.data)
    prompts = [
        chat.prompt_ids(chat.fit(prompt_messages(dialogue.turns[:turn], strategies), cfg.generation.max_prompt_length))
        for dialogue in test
        for turn in dialogue.supporter_turns()
    ]
    return prompts[:turns]


def shared(model, prompts: Sequence[list[int]], new_tokens: int) -> list[list[int]]:
    """What the project does, all turns at once."""
    from cso_lab.generation.batched_decoding import Decoding, reply_ids

    return reply_ids(model, prompts, Decoding(new_tokens, 0.0, ends=()))


def unshared(model, prompts: Sequence[list[int]], new_tokens: int) -> list[list[int]]:
    """The same decoding, every prompt read and kept by itself."""
    from cso_lab.generation import batched_decoding as decode

    alone = patch.object(decode, "_contexts", lambda prompts: (list(prompts), [[row] for row in range(len(prompts))]))
    with alone, patch.object(decode, "_TOKENS_PER_PASS", 1):
        return shared(model, prompts, new_tokens)


def plain(model, prompts: Sequence[list[int]], new_tokens: int, batch: int) -> list[list[int]]:
    """`model.generate` on batches padded on the left."""
    import torch

    replies = []
    for first in range(0, len(prompts), batch):
        rows = prompts[first : first + batch]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
        with torch.inference_mode():
            written = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, min_new_tokens=new_tokens, max_new_tokens=new_tokens
            )
        replies += written[:, width:].tolist()
    return replies


def measure(model, prompts: Sequence[list[int]], new_tokens: int, repeats: int) -> dict:
    """Turns a second of the three, and the share of replies that agree token by token with those of `generate`."""
    import torch

    def seconds(write: Callable[..., list], *more: int) -> tuple[float, list]:
        began = time.perf_counter()
        replies = write(model, prompts, new_tokens, *more)
        return time.perf_counter() - began, replies

    def first(size: int) -> float:
        began = time.perf_counter()
        try:
            plain(model, prompts[: max(PLAIN_BATCHES)], new_tokens, size)
        except torch.OutOfMemoryError:
            return math.inf
        return time.perf_counter() - began

    batch = min(PLAIN_BATCHES, key=first)
    sides = {"shared": (shared,), "unshared": (unshared,), "plain": (plain, batch)}
    times: dict[str, list[float]] = {side: [] for side in sides}
    replies = {}
    for _ in range(repeats):
        for side, how in sides.items():
            took, replies[side] = seconds(*how)
            times[side].append(took)
    rate = {side: len(prompts) / statistics.median(found) for side, found in times.items()}
    same = sum(ours == theirs for ours, theirs in zip(replies["shared"], replies["plain"], strict=True))
    return {
        "speedup": round(rate["shared"] / rate["plain"], 2),
        "speedup_over_unshared": round(rate["shared"] / rate["unshared"], 2),
        **{f"{side}_turns_per_second": round(found, 3) for side, found in rate.items()},
        "plain_batch": batch,
        "same_replies": round(same / len(prompts), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, help="the first so many test turns; default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="the last line is JSON")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as generation.max_new_tokens=32")
    options = parser.parse_args()
    from cso_lab.training.backbone import load_model, quiet_libraries

    quiet_libraries()
    with (
        config("hardware=cpu", "generation.max_new_tokens=64", *options.overrides) as cfg,
        tempfile.TemporaryDirectory() as folder,
    ):
        cfg.shared_dir = str(Path(folder))
        prompts = test_prompts(cfg, options.turns)
        model = load_model(cfg, None, dtype=cfg.generation.dtype)
        found = measure(model, prompts, cfg.generation.max_new_tokens, options.repeats)
    found = {"turns": len(prompts), "new_tokens": cfg.generation.max_new_tokens, "dtype": str(model.dtype), **found}
    print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
