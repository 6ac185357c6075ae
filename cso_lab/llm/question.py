"""One request to the model of one role, and the config of a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cso_lab.llm.reply_form import ReplyForm


@dataclass(frozen=True)
class Question:
    """One request to the model of one role, with the parser of its reply.

    `key` identifies it in the journal; `dialogue` is the id of the dialogue it belongs to; `model` is the model's config (see
    `model_config`); `parse` turns the reply's text into the answer and raises ParseError if it does not have the right form. `form` says
    what a reply in JSON looks like; None asks for none.
    """

    key: str
    dialogue: str
    role: str
    model: Mapping
    messages: list[dict]
    seed: int
    parse: Callable[[str], object]
    form: ReplyForm | None = None


def model_config(model: str, temperature: float | None, max_tokens: int | None, extra: Mapping | None = None) -> dict:
    """Returns a model's config: its name, its sampling parameters and, where there are any, `extra` fields of the request's body."""
    config = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
    return config | {"extra": dict(extra)} if extra else config
