"""The decoding strategies of appendix E: how a model comes to its reply. They know no model, only a way to ask one.

Each is a class that is named by `_target_` in conf/decoding/, so that local models, servers and API models share it.
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
    """What a model says to each of some conversations, all at once. "" is a model without words."""

    def __call__(self, conversations: Sequence[Messages], free: bool = False) -> list[str]:
        """`free`: what is asked for is no reply to the seeker, so that it need not have the form of one."""


class Plain:
    """The model's first reply."""

    def prepare(self, training: Sequence[Dialogue], out: Path) -> None:
        """Get ready what is needed beside the conversation; `out` is the run folder. Nothing here."""

    def resume(self, out: Path) -> None:
        """Get ready from what `prepare` left in the run folder `out`, and write nothing."""

    def opening(self, messages: Messages) -> Messages:
        """What the model is asked first, at a turn with this prompt."""
        return messages

    def __call__(self, openings: Sequence[Messages], ask: Ask) -> list[str]:
        """The final reply to each opening, in their order."""
        return ask(openings)


class DirectRefine(Plain):
    """The model is shown its reply and writes a better one, without anything in between."""

    def __init__(self, refine: str):
        self.refine = refine

    def __call__(self, openings: Sequence[Messages], ask: Ask) -> list[str]:
        drafts = ask(openings)
        return _ask_on(ask, _told(openings, drafts, self.refine))


class SelfRefine(Plain):
    """The model criticises its reply, then writes a better one by its own criticism (Madaan et al., 2024)."""

    def __init__(self, criticise: str, refine: str):
        self.criticise, self.refine = criticise, refine

    def __call__(self, openings: Sequence[Messages], ask: Ask) -> list[str]:
        drafted = _told(openings, ask(openings), self.criticise)
        criticism = _ask_on(ask, drafted, free=True)
        return _ask_on(ask, _told(drafted, criticism, self.refine))


class WithExample(Plain):
    """A training dialogue stands in the prompt as an example of good support; one for all turns, drawn by `seed`."""

    def __init__(self, introduce: str, seed: int):
        self.introduce, self.seed = introduce, seed
        self.example: str | None = None

    def prepare(self, training: Sequence[Dialogue], out: Path) -> None:
        """Draw the example and leave it in `out`/example.json; a UserError when there is no training dialogue."""
        if not training:
            raise UserError("decoding=with_example takes its example from the training dialogues, and there are none")
        drawn = random.Random(self.seed).choice(training)
        write_json(Path(out) / EXAMPLE, {"seed": self.seed, **asdict(drawn)})
        self._show(drawn.turns)

    def resume(self, out: Path) -> None:
        self._show([Turn(**turn) for turn in read_json(Path(out) / EXAMPLE)["turns"]])

    def _show(self, turns: Sequence[Turn]) -> None:
        self.example = "\n".join([self.introduce, *map(_line, turns)])

    def opening(self, messages: Messages) -> Messages:
        system, *turns = messages
        # Within the system prompt: a prompt that is too long loses its oldest turns, and the example is none of them.
        return [{**system, "content": f"{system['content']}\n\n{self.example}"}, *turns]


def _line(turn: Turn) -> str:
    if turn.speaker == SEEKER:
        return f"Seeker: {turn.text}"
    return f"Supporter: {supporter_message(turn)['content']}"


def _told(conversations: Sequence[Messages | None], replies: Sequence[str], instruction: str) -> list[Messages | None]:
    """Each conversation after the model's reply and what it is then told to do; None once the model was without words."""
    return [
        [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": instruction}]
        if messages and reply.strip()
        else None
        for messages, reply in zip(conversations, replies, strict=True)
    ]


def _ask_on(ask: Ask, conversations: Sequence[Messages | None], free: bool = False) -> list[str]:
    """What the model says to each conversation, "" to None."""
    going_on = [messages for messages in conversations if messages]
    answers = iter(ask(going_on, free=free) if going_on else ())
    return [next(answers) if messages else "" for messages in conversations]
