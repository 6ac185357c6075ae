"""The decoding strategies of appendix E: how a reply is made from one or more calls of a model.

Each is a class named by `_target_` in conf/decoding/. It receives the model as a function, so that local models and servers share it.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json, write_json
from cso_lab.core.records import SEEKER, Dialogue, Turn, supporter_message

Messages = list[dict[str, str]]

EXAMPLE = "example.json"


class Ask(Protocol):
    """A function that sends conversations to a model as one batch."""

    def __call__(self, conversations: Sequence[Messages], free: bool = False) -> list[str]:
        """Returns the model's reply to each conversation, without its reasoning, "" if it has none.

        A final reply is best returned as it is: it is a ReplyText, which says whether it was cut and what the model really wrote.

        `free`: the reply is not addressed to the seeker, so that it is not constrained to the form "(Strategy) text".
        """


class Plain:
    """The model's first reply is the final one."""

    def prepare(self, training: Sequence[Dialogue], out: Path) -> None:
        """Prepares what the prompts need from the training dialogues and writes it to the run folder `out`. Nothing here."""

    def resume(self, out: Path) -> None:
        """Restores what `prepare` wrote to the run folder `out`. Nothing here."""

    def opening(self, messages: Messages) -> Messages:
        """Returns the first prompt of a turn, given its messages."""
        return messages

    def __call__(self, openings: Sequence[Messages], ask: Ask) -> list[str]:
        """Returns the final reply to each opening, in their order."""
        return ask(openings)


class DirectRefine(Plain):
    """The model is shown its reply and asked for a better one (Direct-Refine)."""

    def __init__(self, refine: str):
        self.refine = refine

    def __call__(self, openings: Sequence[Messages], ask: Ask) -> list[str]:
        """Returns the second reply to each opening, "" if the first was empty."""
        drafts = ask(openings)
        return _ask_open(ask, _continued(openings, drafts, self.refine))


class SelfRefine(Plain):
    """The model criticises its reply, then writes a better one following its own criticism (Self-Refine; Madaan et al., 2024)."""

    def __init__(self, criticise: str, refine: str):
        self.criticise, self.refine = criticise, refine

    def __call__(self, openings: Sequence[Messages], ask: Ask) -> list[str]:
        """Returns the refined reply to each opening, "" if the first reply or the criticism was empty."""
        drafted = _continued(openings, ask(openings), self.criticise)
        criticism = _ask_open(ask, drafted, free=True)
        return _ask_open(ask, _continued(drafted, criticism, self.refine))


class WithExample(Plain):
    """The prompt has a training dialogue as an example of good support (w/ Example); the same for all turns, drawn by `seed`."""

    def __init__(self, introduce: str, seed: int):
        self.introduce, self.seed = introduce, seed
        self.example: str | None = None

    def prepare(self, training: Sequence[Dialogue], out: Path) -> None:
        """Draws the example and writes it to `out`/example.json. Raises UserError if there is no training dialogue."""
        if not training:
            raise UserError("decoding=with_example takes its example from the training dialogues, and there are none")
        dialogue = random.Random(self.seed).choice(training)
        write_json(Path(out) / EXAMPLE, {"seed": self.seed, **asdict(dialogue)})
        self._set_example(dialogue.turns)

    def resume(self, out: Path) -> None:
        """Reads the example from `out`/example.json. Raises UserError if it is missing."""
        self._set_example([Turn(**turn) for turn in read_json(Path(out) / EXAMPLE)["turns"]])

    def _set_example(self, turns: Sequence[Turn]) -> None:
        self.example = "\n".join([self.introduce, *map(_line, turns)])

    def opening(self, messages: Messages) -> Messages:
        """Returns the messages with the example at the end of the system prompt."""
        system, *turns = messages
        # In the system prompt, because a prompt that is too long loses its oldest turns, and would lose the example first.
        return [{**system, "content": f"{system['content']}\n\n{self.example}"}, *turns]


def _line(turn: Turn) -> str:
    if turn.speaker == SEEKER:
        return f"Seeker: {turn.text}"
    return f"Supporter: {supporter_message(turn)['content']}"


def _continued(conversations: Sequence[Messages | None], replies: Sequence[str], instruction: str) -> list[Messages | None]:
    """Returns each conversation with the model's reply and an instruction appended; None if a reply was empty, then or before."""
    return [
        [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": instruction}]
        if messages and reply.strip()
        else None
        for messages, reply in zip(conversations, replies, strict=True)
    ]


def _ask_open(ask: Ask, conversations: Sequence[Messages | None], free: bool = False) -> list[str]:
    """Returns the model's reply to each conversation, "" for None."""
    open_conversations = [messages for messages in conversations if messages]
    replies = iter(ask(open_conversations, free=free) if open_conversations else ())
    return [next(replies) if messages else "" for messages in conversations]
