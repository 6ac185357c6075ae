"""Holds conversations, all at once: in every round each open conversation gets one reply and one reaction.

A finished round is one line of a journal, written before the next round begins, so that an interrupted run goes on with the next round.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cso_lab.conversation.records import CUT, OUT_OF_TURNS, Card, Conversation, Exchange, exchange
from cso_lab.conversation.seekers import Seekers
from cso_lab.conversation.supporters import Supporter, read_reply
from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER
from cso_lab.core.strategies import StrategySet


def converse(
    cards: Sequence[Card], supporter: Supporter, seekers: Seekers, strategies: StrategySet, max_turns: int, journal: Path
) -> list[Conversation]:
    """Returns the conversations with the seekers of `cards`, in their order; `journal` is the file of finished rounds.

    Conversations are held in batches of `supporter.batch_size`, each batch to its end, and do not depend on that number.
    """
    from tqdm.auto import tqdm

    open_ones = {number: Conversation(number, card) for number, card in enumerate(cards, start=1)}
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("ab+") as file:
        held = _restore(open_ones, file)
        size = supporter.batch_size or len(held)
        done = sum(each.ending is not None for each in held.values())
        with tqdm(total=len(held), initial=done, desc="converse", unit="conversation") as bar:
            for first in range(1, len(held) + 1, size):
                numbers = range(first, min(first + size, len(held) + 1))
                while active := [held[number] for number in numbers if held[number].ending is None]:
                    after = _round(active, supporter, seekers, strategies, max_turns)
                    _write(file, after, active)
                    held |= {each.seeker: each for each in after}
                    bar.update(sum(each.ending is not None for each in after))
    return list(held.values())


def _round(
    active: Sequence[Conversation], supporter: Supporter, seekers: Seekers, strategies: StrategySet, max_turns: int
) -> list[Conversation]:
    """Returns the conversations after one more turn of each side."""
    raws = supporter.reply(active)
    replies = [read_reply(raw, strategies) for raw in raws]
    spoken = [(each, reply) for each, reply in zip(active, replies, strict=True) if reply[1]]
    reactions = iter(seekers.react([each for each, _ in spoken], [reply for _, reply in spoken]) if spoken else ())
    after = []
    for conversation, raw, (strategy, text) in zip(active, raws, replies, strict=True):
        if not text:
            ending = supporter.without_words
            after.append(conversation.after(None, ending, SUPPORTER if ending == CUT else None))
            continue
        reaction = next(reactions)
        if reaction is None:
            turn = Exchange(strategy, text, raw, None, conversation.intensity)
            after.append(conversation.after(turn, CUT, SEEKER))
            continue
        turn = Exchange(strategy, text, raw, reaction.text, reaction.intensity)
        last = len(conversation.exchanges) + 1 >= max_turns
        after.append(conversation.after(turn, reaction.ending or (OUT_OF_TURNS if last else None)))
    return after


def _write(file, after: Sequence[Conversation], before: Sequence[Conversation]) -> None:
    """Appends a round with one system call, so that a killed process leaves at most one incomplete line, which is cut off later."""
    turns = [
        {
            "seeker": new.seeker,
            "turn": asdict(new.exchanges[-1]) if len(new.exchanges) > len(old.exchanges) else None,
            "ending": new.ending,
            "cut_by": new.cut_by,
        }
        for new, old in zip(after, before, strict=True)
    ]
    try:
        file.write(json.dumps(turns, ensure_ascii=False).encode() + b"\n")
        file.flush()
    except OSError as error:
        raise UserError(f"cannot write {file.name}: {error.strerror}; the same command goes on from here") from None


def _restore(conversations: dict[int, Conversation], file) -> dict[int, Conversation]:
    """Returns the conversations with the rounds of an interrupted run, and cuts an incomplete last line off its journal."""
    held, end = dict(conversations), 0
    file.seek(0)
    for line in file:
        if not line.endswith(b"\n"):
            break
        for turn in json.loads(line):
            number, new = turn["seeker"], turn["turn"]
            held[number] = held[number].after(new and exchange(new), turn["ending"], turn["cut_by"])
        end += len(line)
    os.ftruncate(file.fileno(), end)
    file.seek(0, os.SEEK_END)
    return held
