"""One request to the model of one role, and the config of a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cso_lab.llm.errors import PromptTooLong
from cso_lab.llm.reasoning import ReplyText
from cso_lab.llm.reply_form import ReplyForm


@dataclass(frozen=True)
class Question:
    """One request to the model of one role, with the parser of its reply.

    `key` identifies it in the journal; `dialogue` is the id of the dialogue it belongs to; `model` is the model's config (see
    `model_config`); `parse` turns the reply's text, a ReplyText, into the answer and raises ParseError if it does not have the right
    form. `form` says what a reply in JSON looks like; None asks for none. `shorten` returns the question without some of its oldest turns,
    `dropped_turns` in all, when its prompt is too long for the model; None if it cannot be shorter.

    A reply that ended at the limit of tokens counts as one that does not parse, unless `trim` makes a text of it that does; with
    `more_room` the question is asked again first, once, with twice as many tokens. Its calls are counted under `role`, or as `counted_as`.
    """

    key: str
    dialogue: str
    role: str
    model: Mapping
    messages: list[dict]
    seed: int
    parse: Callable[[str], object]
    form: ReplyForm | None = None
    shorten: "Callable[[Question, PromptTooLong], Question | None]" = lambda question, error: None
    dropped_turns: int = 0
    trim: Callable[[ReplyText], str] | None = None
    more_room: bool = False
    counted_as: str | None = None


def model_config(model: str, temperature: float | None, max_tokens: int | None, extra: Mapping | None = None) -> dict:
    """Returns a model's config: its name, its sampling parameters and, where there are any, `extra` fields of the request's body."""
    config = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
    return config | {"extra": dict(extra)} if extra else config
