"""Chat messages as the text a model is prompted with and trained on, whatever its chat template does with them.

A prompt ends where the reply's own text begins. What a template writes between the two (an empty thinking block, the name of a channel)
belongs to the prompt: it is no part of what is learnt, and whoever generates is shown it too.
"""

import re
from collections.abc import Sequence

from cso_lab.core.errors import UserError
from cso_lab.core.strategies import SETS, StrategySet, format_reply, parse_reply

Messages = list[dict[str, str]]

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"

# Every template is rendered with these. One of the first two switches thinking off where there is a switch. The last is the date that
# Llama 3.1 writes into every prompt; Llama 3.2 would write today's, and a training would depend on the day it was started.
_VARIABLES = {"enable_thinking": False, "thinking": False, "date_string": "26 Jul 2024"}

# The conversation that templates are tried with. No text is part of another one.
_INSTRUCTION = {"role": SYSTEM, "content": "Answer as a caring supporter."}
_HISTORY = [
    {"role": USER, "content": "I had a hard week."},
    {"role": ASSISTANT, "content": "(Affirmation) You got through it."},
    {"role": USER, "content": "What should I do?"},
]
_REPLY = {"role": ASSISTANT, "content": "(Affirmation) You could rest first."}

_MARK = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")


class ChatFormat:
    """A tokenizer's chat template, with what it refuses or drops (a system role, an opening reply) worked around.

    Text rendered here is meant to be tokenized as `tokenizer(text)` does by default: where that puts BOS before any text, the
    template's own BOS is left out. `turn_end` is the token that ends a reply. Raises UserError for a template without which no reply
    can be trained or measured; `check_chat_template` looks further.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        bos = tokenizer.bos_token_id
        self._adds_bos = bos is not None and tokenizer("x")["input_ids"][:1] == [bos]
        self.folds_system = not self._shows([_INSTRUCTION, *_HISTORY])
        self.refuses_opening_reply = not self._shows([_REPLY, _HISTORY[0]])
        asked, written, self._after = self._around_reply()
        self.turn_end, self._end = self._reply_end()
        header = _header(asked, written)
        self._surplus, self._lacking = _difference(asked, header)
        self._blanks = ""
        prompt = self.prompt([_INSTRUCTION, *_HISTORY])
        if _common(self.ids(prompt), self.ids(prompt + _REPLY["content"])) < len(self.ids(prompt)):
            # The tokenizer joins the last blanks with what follows them: then they are the reply's.
            self._blanks = header[len(header.rstrip()) :]
            self._surplus, self._lacking = _difference(asked, header.rstrip())

    def prompt(self, messages: Messages) -> str:
        """The text a reply to `messages` is written after."""
        return self._text(messages, add_generation_prompt=True).removesuffix(self._surplus) + self._lacking

    def response(self, messages: Messages, reply: dict[str, str]) -> str:
        """What the template puts after `prompt(messages)` for this reply, up to and including the token that ends the turn."""
        prompt, whole = self.prompt(messages), self._text([*messages, reply], add_generation_prompt=False)
        if whole.startswith(prompt):
            return whole[len(prompt) :].removesuffix(self._after) + self._end
        return self._blanks + reply["content"].strip() + self._end

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
        return len(whole) - _common(alone, whole)

    def fit(self, messages: Messages, max_length: int) -> Messages | None:
        """`messages` without as many of their oldest turns as it takes for the prompt to have at most `max_length` tokens.

        What is left opens, after the system prompt, with a user turn (with an assistant's only if nothing was dropped and the
        template takes it). The system prompt and the last turn always stay; None if they alone are too long.
        """
        system = messages[:1] if messages and messages[0]["role"] == SYSTEM else []
        turns = messages[len(system) :]
        for start, turn in enumerate(turns):
            if turn["role"] == USER or (start == 0 and not self.refuses_opening_reply):
                fitted = [*system, *turns[start:]]
                if len(self.prompt_ids(fitted)) <= max_length:
                    return fitted
        return None

    def _text(self, messages: Messages, add_generation_prompt: bool) -> str:
        if self.folds_system:
            messages = fold_system(messages)
        text = self._render(messages, add_generation_prompt)
        return text.removeprefix(self.tokenizer.bos_token) if self._adds_bos else text

    def _render(self, messages: Messages, add_generation_prompt: bool) -> str:
        return self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **_VARIABLES
        )

    def _shows(self, messages: Messages) -> bool:
        """Whether the template takes these messages and writes the text of all of them."""
        try:
            return not _lost(messages, self._render(messages, add_generation_prompt=True))
        except Exception:  # a template is a program of its own, and can fail in any way
            return False

    def _around_reply(self) -> tuple[str, str, str]:
        """What stands between the last user turn's text and the end of a prompt, between it and a reply's text, and after that."""
        messages, question, reply = [_INSTRUCTION, *_HISTORY], _HISTORY[-1]["content"], _REPLY["content"]
        try:
            prompt = self._text(messages, add_generation_prompt=True)
            whole = self._text([*messages, _REPLY], add_generation_prompt=False)
        except Exception as error:
            raise _unusable(self.tokenizer, f"it fails ({' '.join(str(error).split())})") from error
        if lost := _lost(messages, prompt):
            raise _unusable(self.tokenizer, f"its prompt lacks the {lost['role']} text, or has it out of order")
        written, found, after = whole.rpartition(question)[2].partition(reply)
        if not found:
            raise _unusable(self.tokenizer, "it does not write the text of the reply after that of the last user message")
        return prompt.rpartition(question)[2], written, after

    def _reply_end(self) -> tuple[str, str]:
        """The token that ends a reply, and what the template writes after a reply's text up to and including it.

        The tokenizer's EOS is put there where the template writes nothing.
        """
        tokenizer, after = self.tokenizer, self._after.lstrip()
        tokens = [token for token in {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()} if after.startswith(token)]
        if tokens:
            token = max(tokens, key=len)
            return token, self._after[: len(self._after) - len(after)] + token
        if after:
            raise _unusable(
                tokenizer, f"it ends a reply with {after[:40]!r}, which begins with no special token of the tokenizer"
            )
        if tokenizer.eos_token is None:
            raise _unusable(tokenizer, "it writes nothing after a reply, and the tokenizer has no EOS token")
        return tokenizer.eos_token, tokenizer.eos_token


def check_chat_template(tokenizer) -> None:
    """Raises UserError, in one line, where a chat template lacks what training, generation and measuring rely on.

    A prompt must have the text of the system prompt, then that of every turn in its order; the reply's text must come after it, then a
    token that ends the turn, which is the tokenizer's EOS and so ends generation; the prompt's tokens must be the first ones of prompt
    and response; and "(Strategy) text" must be read back from the reply's tokens, for every strategy.
    """
    chat = ChatFormat(tokenizer)
    opening = _HISTORY if chat.refuses_opening_reply else _HISTORY[1:]
    for messages in ([_INSTRUCTION, *_HISTORY], [_INSTRUCTION, *opening]):
        if lost := _lost(messages, chat.prompt(messages)):
            raise _unusable(tokenizer, f"its prompt lacks the {lost['role']} text, or has it out of order")
    for strategies in SETS.values():
        for strategy in strategies.names:
            _check_reply(chat, strategy, strategies)


def _check_reply(chat: ChatFormat, strategy: str, strategies: StrategySet) -> None:
    """Raises UserError unless a reply with this strategy is read back from its tokens, which follow the prompt's and end with EOS."""
    messages, reply = [_INSTRUCTION, *_HISTORY], {"role": ASSISTANT, "content": format_reply(strategy, "You could rest first.")}
    prompt, end = chat.prompt_ids(messages), chat.tokenizer.eos_token_id
    whole = chat.ids(chat.prompt(messages) + chat.response(messages, reply))
    response = whole[len(prompt) :]
    if whole[: len(prompt)] != prompt:
        raise _unusable(chat.tokenizer, "the tokens of a prompt are not the first ones of prompt and reply together")
    if end in response[:-1] or response[-1:] != [end]:
        raise _unusable(chat.tokenizer, f"a reply does not end with the tokenizer's EOS token {chat.tokenizer.eos_token!r}")
    written = chat.tokenizer.decode(response[:-1], skip_special_tokens=True)
    if parse_reply(written, strategies)[0] != strategy:
        raise _unusable(chat.tokenizer, f"{reply['content']!r} is read back from its tokens as {written!r}")


def fold_system(messages: Messages) -> Messages:
    """The system prompt as the opening lines of the first user turn, for templates without a system role (Gemma-2)."""
    if not messages or messages[0]["role"] != SYSTEM:
        return messages
    system, turns = messages[0]["content"], messages[1:]
    first = next((i for i, turn in enumerate(turns) if turn["role"] == USER), None)
    if first is None:
        return [{"role": USER, "content": system}, *turns]
    folded = {"role": USER, "content": f"{system}\n\n{turns[first]['content']}"}
    return [*turns[:first], folded, *turns[first + 1 :]]


def _lost(messages: Sequence[dict[str, str]], text: str) -> dict[str, str] | None:
    """The first message whose text is not in the rendered one; turns must stand in their order, the system prompt anywhere."""
    at = 0
    for message in messages:
        found = text.find(message["content"], 0 if message["role"] == SYSTEM else at)
        if found < 0:
            return message
        if message["role"] != SYSTEM:
            at = found + len(message["content"])
    return None


def _header(asked: str, written: str) -> str:
    """What a prompt ends with, after the last user turn: what stands before a reply that the template is given.

    `asked` is the template's own generation prompt, `written` what it writes before a reply. They differ in thinking: one that is opened
    for the model to fill is left out; one that is opened and closed again stays, though the template omits it once there is a reply.
    """
    return asked if asked.startswith(written) and not _opens_block(asked[len(written) :]) else written


def _opens_block(text: str) -> bool:
    """Whether a mark such as <think> is opened and not closed: marks come in pairs."""
    marks = _MARK.findall(text)
    return len(marks) % 2 == 1 and marks[-1][1] != "/"


def _difference(ending: str, wanted: str) -> tuple[str, str]:
    """What to take off a text that ends with `ending`, and what to put there instead, for it to end with `wanted`."""
    same = _common(ending, wanted)
    return ending[same:], wanted[same:]


def _common(one: Sequence, other: Sequence) -> int:
    """How many of their first elements two sequences have in common."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _unusable(tokenizer, what: str) -> UserError:
    return UserError(
        f"the chat template of {tokenizer.name_or_path} cannot be used: {what}; choose another instruction-tuned model as backbone.path"
    )
