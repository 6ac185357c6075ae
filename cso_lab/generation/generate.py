"""Checkpoint -> predictions.jsonl: a reply at every supporter turn that follows a seeker turn, given the gold history."""

import gc
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cso_lab.dialogue import Dialogue, Prediction, prompt_messages
from cso_lab.errors import UserError, unknown
from cso_lab.strategies import StrategySet, format_reply, parse_reply
from cso_lab.training.backbone import load_model, load_tokenizer
from cso_lab.training.rows import ChatFormat, Messages

PREDICTIONS = "predictions.jsonl"
CONSTRAINTS = ("none", "format")


@dataclass(frozen=True)
class _Request:
    """One turn to be predicted, and the prompt for it."""

    dialogue: Dialogue
    turn: int
    messages: Messages
    prompt: list[int]


def generate(cfg, dialogues: Sequence[Dialogue], strategies: StrategySet, checkpoint: Path | None, out: Path) -> None:
    """Write `out`/predictions.jsonl, one Prediction a labelled supporter turn, in the order of the dialogues.

    `checkpoint` is a folder `train` left, or None for the backbone as it is. What a killed run has written so far is kept
    and continued. `cfg.generation.constrain` = "format" makes every reply open with one of `strategies`.
    """
    generation = cfg.generation
    if generation.constrain not in CONSTRAINTS:
        raise unknown("generation.constrain", generation.constrain, CONSTRAINTS)
    chat = ChatFormat(load_tokenizer(cfg))
    requests = _requests(dialogues, strategies, chat, generation.max_prompt_length)[: generation.max_turns]
    if not requests:
        raise UserError("no test turn to generate for: data.test_share leaves no dialogue, or generation.max_turns is 0")

    out = Path(out)
    partial = out / f".{PREDICTIONS}.partial"
    done = _already_written(partial, requests, generation.batch_size)
    if done < len(requests):
        _write_replies(cfg, requests, done, strategies, chat, checkpoint, partial)
    os.replace(partial, out / PREDICTIONS)


def strategy_openings(chat: ChatFormat, messages: Messages, strategies: StrategySet) -> list[list[int]]:
    """For each strategy, the token ids of "(Strategy)" as they stand in a training response after the prompt `messages`."""
    before = len(chat.prompt_ids(messages))
    openings = []
    for name in strategies.names:
        opening = format_reply(name, "").rstrip()
        reply = {"role": "assistant", "content": format_reply(name, "I")}
        ids = chat.ids(chat.prompt(messages) + chat.response(messages, reply))[before:]
        # A tokenizer may join the closing bracket with what follows: as many tokens as it takes to have it.
        length = next(n for n in range(1, len(ids) + 1) if opening in chat.tokenizer.decode(ids[:n]))
        openings.append(ids[:length])
    return openings


def _requests(
    dialogues: Sequence[Dialogue], strategies: StrategySet, chat: ChatFormat, max_prompt_length: int
) -> list[_Request]:
    requests = []
    for dialogue in dialogues:
        for turn in dialogue.supporter_turns():
            if dialogue.turns[turn].strategy is None:
                continue
            messages = chat.fit(prompt_messages(dialogue.turns[:turn], strategies), max_prompt_length)
            if messages is None:
                raise UserError(
                    f"dialogue {dialogue.id}, turn {turn}: system prompt and last seeker turn alone are longer than"
                    f" generation.max_prompt_length={max_prompt_length}: raise it"
                )
            requests.append(_Request(dialogue, turn, messages, chat.prompt_ids(messages)))
    return requests


def _already_written(partial: Path, requests: Sequence[_Request], batch_size: int) -> int:
    """How many of `requests` the file of a killed run answers, in whole batches; the file is cut back to these."""
    lines = partial.read_text(encoding="utf-8").splitlines() if partial.exists() else []
    whole = 0
    for line, request in zip(lines, requests, strict=False):
        try:
            written = json.loads(line)
        except json.JSONDecodeError:
            break
        if (written["dialogue"], written["turn"]) != (request.dialogue.id, request.turn):
            break
        whole += 1
    # Whole batches only, so that a continued run groups, and samples, as an undisturbed one does.
    kept = whole if whole == len(requests) else whole - whole % batch_size
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text("".join(f"{line}\n" for line in lines[:kept]), encoding="utf-8")
    return kept


def _write_replies(
    cfg,
    requests: Sequence[_Request],
    done: int,
    strategies: StrategySet,
    chat: ChatFormat,
    checkpoint: Path | None,
    partial: Path,
) -> None:
    """Append the predictions for `requests[done:]` to `partial`, batch by batch."""
    import torch
    from tqdm.auto import tqdm

    from cso_lab.generation.decode import Decoding, reply_ids

    generation = cfg.generation
    model = load_model(cfg, checkpoint, dtype=generation.dtype)
    decoding = Decoding(
        max_new_tokens=generation.max_new_tokens,
        temperature=generation.temperature,
        ends=_ends(model, chat.tokenizer),
    )
    openings = strategy_openings(chat, requests[0].messages, strategies) if generation.constrain == "format" else []

    with (
        partial.open("a", encoding="utf-8") as file,
        tqdm(total=len(requests), initial=done, desc="generate", unit="turn") as bar,
    ):
        for first in range(done, len(requests), generation.batch_size):
            batch = requests[first : first + generation.batch_size]
            torch.manual_seed(generation.seed + first)
            replies = reply_ids(model, [request.prompt for request in batch], decoding, openings)
            for request, ids in zip(batch, replies, strict=True):
                raw = chat.tokenizer.decode(ids, skip_special_tokens=True)
                file.write(json.dumps(asdict(_prediction(request, raw, strategies)), ensure_ascii=False) + "\n")
            file.flush()
            bar.update(len(batch))
    # All jobs of a sweep share one process.
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _prediction(request: _Request, raw: str, strategies: StrategySet) -> Prediction:
    gold = request.dialogue.turns[request.turn]
    strategy, response = parse_reply(raw, strategies)
    return Prediction(request.dialogue.id, request.turn, gold.strategy, gold.text, strategy, response, raw)


def _ends(model, tokenizer) -> tuple[int, ...]:
    """Tokens that end a reply: the template's turn end, and whatever else the model's own configuration ends at."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [] if own is None else [own]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *own]))
