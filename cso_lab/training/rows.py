"""Chat messages as the strings a model is trained on and prompted with, fitted to length: the same for both."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cso_lab.errors import UserError
from cso_lab.files import read_jsonl

Messages = list[dict[str, str]]

# The fields of a row that hold a response: a pair has two of them, an SFT or KTO row one.
RESPONSES = ("chosen", "rejected", "completion")

_USER, _ASSISTANT, _SYSTEM = "user", "assistant", "system"


@dataclass
class RowCounts:
    """What became of the rows of a preference file. `read` = `used` + `response_too_long` + `prompt_too_long` + `not_chosen`."""

    read: int = 0
    used: int = 0
    # rows that lost some of their oldest turns, among the used ones
    shortened: int = 0
    # left out: a response above max_target_length
    response_too_long: int = 0
    # left out: system prompt and last seeker turn alone above max_prompt_length
    prompt_too_long: int = 0
    # not looked at, because of max_rows
    not_chosen: int = 0


class ChatFormat:
    """A tokenizer's chat template, with what it refuses (a system role, an opening reply) worked around.

    Text rendered here is meant to be tokenized as `tokenizer(text)` does by default: where that puts BOS before any text, the
    template's own BOS is left out.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        question = {"role": _USER, "content": "question"}
        reply = {"role": _ASSISTANT, "content": "reply"}
        self.folds_system = not self._renders([{"role": _SYSTEM, "content": "instruction"}, question])
        self.refuses_opening_reply = not self._renders([reply, question])
        bos = tokenizer.bos_token_id
        self._adds_bos = bos is not None and tokenizer("x")["input_ids"][:1] == [bos]

    def prompt(self, messages: Messages) -> str:
        """The text a reply to `messages` is written after, generation prompt included."""
        return self._text(messages, add_generation_prompt=True)

    def response(self, messages: Messages, reply: dict[str, str]) -> str:
        """What the template puts after `prompt(messages)` for this reply, up to and including the token that ends the turn."""
        prompt, whole = self.prompt(messages), self._text([*messages, reply], add_generation_prompt=False)
        if whole.startswith(prompt):
            return whole[len(prompt) :].rstrip()
        return whole[whole.rindex(reply["content"].strip()) :].rstrip()

    def ids(self, text: str) -> list[int]:
        """Token ids as the trainers get them."""
        return self.tokenizer(text)["input_ids"]

    def prompt_ids(self, messages: Messages) -> list[int]:
        """Token ids of `prompt(messages)`."""
        return self.ids(self.prompt(messages))

    def response_length(self, messages: Messages, reply: dict[str, str]) -> int:
        """Tokens of the response, from where prompt and prompt + response part: some tokenizers merge across that border."""
        prompt = self.prompt(messages)
        alone, whole = self.ids(prompt), self.ids(prompt + self.response(messages, reply))
        shared = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), min(len(alone), len(whole)))
        return len(whole) - shared

    def fit(self, messages: Messages, max_length: int) -> Messages | None:
        """`messages` without as many of their oldest turns as it takes for the prompt to have at most `max_length` tokens.

        What is left opens, after the system prompt, with a user turn (with an assistant's only if nothing was dropped and the
        template takes it). The system prompt and the last turn always stay; None if they alone are too long.
        """
        system = messages[:1] if messages and messages[0]["role"] == _SYSTEM else []
        turns = messages[len(system) :]
        for start, turn in enumerate(turns):
            if turn["role"] == _USER or (start == 0 and not self.refuses_opening_reply):
                fitted = [*system, *turns[start:]]
                if len(self.prompt_ids(fitted)) <= max_length:
                    return fitted
        return None

    def _text(self, messages: Messages, add_generation_prompt: bool) -> str:
        if self.folds_system:
            messages = fold_system(messages)
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
        return text.removeprefix(self.tokenizer.bos_token) if self._adds_bos else text

    def _renders(self, messages: Messages) -> bool:
        from jinja2.exceptions import TemplateError

        try:
            self.tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError:
            return False
        return True


def read_rows(folder: Path, rows: str) -> list[dict]:
    """The rows of `folder`/`rows`.jsonl; a UserError names the first one that is not a prompt with its response(s).

    A pair is {prompt, chosen, rejected}, an SFT row {prompt, completion}, a KTO row that with a bool `label`; prompts and
    responses are lists of {role, content}. Other fields are allowed and not used.
    """
    path = Path(folder) / f"{rows}.jsonl"
    found = read_jsonl(path)
    if not found:
        raise UserError(f"{path} holds no row: run the dataset stage on more dialogues, or with a lower preferences threshold")
    for number, row in enumerate(found, start=1):
        fields = [field for field in RESPONSES if field in row]
        whole = fields in (["chosen", "rejected"], ["completion"]) and all(len(row[field]) == 1 for field in fields)
        if not whole or not row.get("prompt") or row["prompt"][-1]["role"] != _USER:
            raise UserError(
                f"{path}:{number}: expected a prompt that ends with a user turn, and chosen and rejected or completion of one"
                " message each"
            )
    return found


def fit_rows(
    rows: Sequence[dict], chat: ChatFormat, max_prompt_length: int, max_target_length: int, max_rows: int | None, seed: int
) -> tuple[list[dict], RowCounts]:
    """Rows as TRL takes them, plain strings under `prompt` and the response fields (and `label`), in a seeded order; and `dialogue`.

    Responses are bounded by `max_target_length` tokens and prompts, separately, by `max_prompt_length` (appendix F; see
    `ChatFormat.fit`); a row that does not fit is left out and counted. `max_rows` keeps that many rows, chosen by `seed`.
    The order is mixed because KTO's trainer reads rows as they come, and they come preferred ones first.
    """
    mixed = random.Random(seed).sample(rows, len(rows))
    wanted = mixed if max_rows is None else mixed[:max_rows]
    counts = RowCounts(read=len(rows), not_chosen=len(rows) - len(wanted))
    fitted = []
    for row in wanted:
        replies = {field: row[field][0] for field in RESPONSES if field in row}
        messages = chat.fit(row["prompt"], max_prompt_length)
        if messages is None:
            counts.prompt_too_long += 1
        elif any(chat.response_length(messages, reply) > max_target_length for reply in replies.values()):
            counts.response_too_long += 1
        else:
            counts.shortened += len(messages) < len(row["prompt"])
            texts = {field: chat.response(messages, reply) for field, reply in replies.items()}
            label = {"label": row["label"]} if "label" in row else {}
            fitted.append({"prompt": chat.prompt(messages), **texts, **label, "dialogue": row.get("dialogue", "")})
    counts.used = len(fitted)
    if not fitted:
        raise UserError(
            f"no training row fits: {asdict(counts)}; raise training.max_prompt_length ({max_prompt_length}) or"
            f" training.max_target_length ({max_target_length})"
        )
    return fitted, counts


def fold_system(messages: Messages) -> Messages:
    """The system prompt as the opening lines of the first user turn, for templates without a system role (Gemma-2)."""
    if not messages or messages[0]["role"] != _SYSTEM:
        return messages
    system, turns = messages[0]["content"], messages[1:]
    first = next((i for i, turn in enumerate(turns) if turn["role"] == _USER), None)
    if first is None:
        return [{"role": _USER, "content": system}, *turns]
    folded = {"role": _USER, "content": f"{system}\n\n{turns[first]['content']}"}
    return [*turns[:first], folded, *turns[first + 1 :]]
