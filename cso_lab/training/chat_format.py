"""Renders chat messages as the text a model is prompted with and trained on, for chat templates of any kind.

A prompt ends where the reply's own text begins. What a template writes between the two (an empty thinking block, the name of a channel)
belongs to the prompt: it is not trained on, and generation starts after it.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from cso_lab.core.errors import UserError
from cso_lab.core.strategies import SETS, StrategySet, format_reply, parse_reply

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"

# The names of the switch that turns thinking on or off; each template knows one of them at most.
THINKING_SWITCHES = ("enable_thinking", "thinking")
# Every template is rendered with these variables, unless `backbone.chat_template_kwargs` says otherwise. The date is the one that Llama 3.1
# writes into every prompt; Llama 3.2 would write today's, and a training would depend on the day it was started.
_VARIABLES = dict.fromkeys(THINKING_SWITCHES, False) | {"date_string": "26 Jul 2024"}

# The conversation by which templates are examined. No text is part of another one.
_INSTRUCTION = {"role": SYSTEM, "content": "Answer as a caring supporter."}
_HISTORY = [
    {"role": USER, "content": "I had a hard week."},
    {"role": ASSISTANT, "content": "(Affirmation) You got through it."},
    {"role": USER, "content": "What should I do?"},
]
_REPLY = {"role": ASSISTANT, "content": "(Affirmation) You could rest first."}

_MARK = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")


class ChatFormat:
    """Renders prompts and responses with a tokenizer's chat template; works around roles and turns that the template refuses or drops.

    `variables`: those of the template beside the messages (`backbone.chat_template_kwargs`).

    Rendered text is to be tokenized by `tokenizer(text)` with its defaults: if that adds BOS, the template's own BOS is left out.
    `turn_end` is the token that ends a reply. `folds_system`: the template has no system role; `refuses_opening_reply`: it does not
    accept a conversation that opens with the assistant. Raises UserError if the template cannot be used at all; `check_chat_template`
    checks more.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", variables: Mapping[str, object] = MappingProxyType({})):
        self.tokenizer = tokenizer
        self._given = dict(variables)
        self._variables = _VARIABLES | self._given
        bos = tokenizer.bos_token_id
        self._adds_bos = bos is not None and tokenizer("x")["input_ids"][:1] == [bos]
        self.folds_system = not self._renders_all([_INSTRUCTION, *_HISTORY])
        self.refuses_opening_reply = not self._renders_all([_REPLY, _HISTORY[0]])
        generation_prompt, before_reply, self._after_reply = self._around_reply()
        self.turn_end, self._end = self._reply_end()
        header = _header(generation_prompt, before_reply)
        # A prompt is the template's own generation prompt with `_surplus` removed from its end and `_lacking` appended.
        self._surplus, self._lacking = _difference(generation_prompt, header)
        self._blanks = ""
        prompt = self.prompt([_INSTRUCTION, *_HISTORY])
        if _common(self.ids(prompt), self.ids(prompt + _REPLY["content"])) < len(self.ids(prompt)):
            # The tokenizer merges the prompt's last blanks with the text that follows: then they belong to the reply.
            self._blanks = header[len(header.rstrip()) :]
            self._surplus, self._lacking = _difference(generation_prompt, header.rstrip())

    def prompt(self, messages: Messages) -> str:
        """Returns the text after which a model writes its reply to `messages`."""
        return self._text(messages, add_generation_prompt=True).removesuffix(self._surplus) + self._lacking

    def response(self, messages: Messages, reply: dict[str, str], prompt: str | None = None) -> str:
        """Returns what follows `prompt(messages)` for this reply, up to and including the token that ends the turn.

        The prompt is rendered unless it is given.
        """
        if prompt is None:
            prompt = self.prompt(messages)
        whole = self._text([*messages, reply], add_generation_prompt=False)
        if whole.startswith(prompt):
            return whole[len(prompt) :].removesuffix(self._after_reply) + self._end
        return self._blanks + reply["content"].strip() + self._end

    def ids(self, text: str) -> list[int]:
        """Returns the token ids that the trainers compute for this text."""
        return self.tokenizer(text)["input_ids"]

    def prompt_ids(self, messages: Messages) -> list[int]:
        """Returns the token ids of `prompt(messages)`."""
        return self.ids(self.prompt(messages))

    def response_length(self, prompt: str, prompt_ids: Sequence[int], response: str) -> int:
        """Returns the number of tokens of prompt + response after those of the prompt; some tokenizers merge tokens across the border."""
        whole = self.ids(prompt + response)
        return len(whole) - _common(prompt_ids, whole)

    def fit(self, messages: Messages, max_length: int) -> Messages | None:
        """Returns `messages` without the fewest oldest turns, so that the prompt has at most `max_length` tokens.

        The result opens, after the system prompt, with a user turn (or with an assistant turn, if no turn was dropped and the template
        accepts it). The system prompt and the last turn are always kept; returns None if they alone are too long.
        """
        system = messages[:1] if messages and messages[0]["role"] == SYSTEM else []
        turns = messages[len(system) :]
        for start, turn in enumerate(turns):
            if turn["role"] == USER or (start == 0 and not self.refuses_opening_reply):
                fitted = [*system, *turns[start:]]
                if len(self.prompt_ids(fitted)) <= max_length:
                    return fitted
        return None

    def variables_of_requests(self) -> dict[str, object]:
        """Returns the template variables that a server needs to render prompts as this process does.

        These are the given ones, and of the others those without which the template would write another prompt.
        """
        messages = [_INSTRUCTION, *_HISTORY]
        prompt = self._text(messages, add_generation_prompt=True)

        def makes_a_difference(name: str) -> bool:
            others = {key: value for key, value in self._variables.items() if key != name}
            try:
                return self._text(messages, add_generation_prompt=True, variables=others) != prompt
            except Exception:  # a template is a program, which can raise anything
                return True

        return {name: self._variables[name] for name in self._variables if name in self._given or makes_a_difference(name)}

    def _text(self, messages: Messages, add_generation_prompt: bool, variables: Mapping[str, object] | None = None) -> str:
        if self.folds_system:
            messages = fold_system(messages)
        text = self._render(messages, add_generation_prompt, variables)
        return text.removeprefix(self.tokenizer.bos_token) if self._adds_bos else text

    def _render(self, messages: Messages, add_generation_prompt: bool, variables: Mapping[str, object] | None = None) -> str:
        return self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **(self._variables if variables is None else variables),
        )

    def _renders_all(self, messages: Messages) -> bool:
        """Returns whether the template accepts these messages and writes the text of each of them."""
        try:
            return not _missing_message(messages, self._render(messages, add_generation_prompt=True))
        except Exception:  # a template is a program, which can raise anything
            return False

    def _around_reply(self) -> tuple[str, str, str]:
        """Returns three texts of the template: its generation prompt, what it writes before a given reply, and what it writes after one.

        The first two begin after the text of the last user turn. Raises UserError if the template fails or loses a text.
        """
        messages, question, reply = [_INSTRUCTION, *_HISTORY], _HISTORY[-1]["content"], _REPLY["content"]
        try:
            prompt = self._text(messages, add_generation_prompt=True)
            whole = self._text([*messages, _REPLY], add_generation_prompt=False)
        except Exception as error:
            raise _unusable(self.tokenizer, f"it fails ({' '.join(str(error).split())})") from error
        if missing := _missing_message(messages, prompt):
            raise _unusable(self.tokenizer, f"its prompt lacks the {missing['role']} text, or has it out of order")
        before, separator, after = whole.rpartition(question)[2].partition(reply)
        if not separator:
            raise _unusable(self.tokenizer, "it does not write the text of the reply after that of the last user message")
        return prompt.rpartition(question)[2], before, after

    def _reply_end(self) -> tuple[str, str]:
        """Returns the token that ends a reply, and what the template writes after a reply's text up to and including that token.

        Both are the tokenizer's EOS if the template writes nothing. Raises UserError if no special token ends the reply.
        """
        tokenizer, after = self.tokenizer, self._after_reply.lstrip()
        tokens = [token for token in {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()} if after.startswith(token)]
        if tokens:
            token = max(tokens, key=len)
            return token, self._after_reply[: len(self._after_reply) - len(after)] + token
        if after:
            raise _unusable(
                tokenizer, f"it ends a reply with {after[:40]!r}, which begins with no special token of the tokenizer"
            )
        if tokenizer.eos_token is None:
            raise _unusable(tokenizer, "it writes nothing after a reply, and the tokenizer has no EOS token")
        return tokenizer.eos_token, tokenizer.eos_token


def check_chat_template(tokenizer: "PreTrainedTokenizerBase", variables: Mapping[str, object] = MappingProxyType({})) -> None:
    """Raises UserError if a chat template, with these `variables`, does not do what training, generation and evaluation rely on.

    A prompt must contain the text of the system prompt and of every turn in order. The reply's text must follow, then a token that ends
    the turn and is the tokenizer's EOS, so that it ends generation. The tokens of a prompt must be the first ones of prompt and response
    together. For every strategy, "(Strategy) text" must be parsed from the decoded tokens of the reply.
    """
    chat = ChatFormat(tokenizer, variables)
    opening = _HISTORY if chat.refuses_opening_reply else _HISTORY[1:]
    for messages in ([_INSTRUCTION, *_HISTORY], [_INSTRUCTION, *opening]):
        if missing := _missing_message(messages, chat.prompt(messages)):
            raise _unusable(tokenizer, f"its prompt lacks the {missing['role']} text, or has it out of order")
    for strategies in SETS.values():
        for strategy in strategies.names:
            _check_reply(chat, strategy, strategies)


def _check_reply(chat: ChatFormat, strategy: str, strategies: StrategySet) -> None:
    """Raises UserError unless the tokens of a reply with this strategy follow the prompt's, end with EOS and decode to the strategy."""
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
    """Returns the messages with the system prompt as the opening lines of the first user turn, for templates without a system role."""
    if not messages or messages[0]["role"] != SYSTEM:
        return messages
    system, turns = messages[0]["content"], messages[1:]
    first = next((i for i, turn in enumerate(turns) if turn["role"] == USER), None)
    if first is None:
        return [{"role": USER, "content": system}, *turns]
    folded = {"role": USER, "content": f"{system}\n\n{turns[first]['content']}"}
    return [*turns[:first], folded, *turns[first + 1 :]]


def _missing_message(messages: Sequence[dict[str, str]], text: str) -> dict[str, str] | None:
    """Returns the first message whose text is not in the rendered text; turns must be in order, the system prompt may be anywhere."""
    position = 0
    for message in messages:
        start = text.find(message["content"], 0 if message["role"] == SYSTEM else position)
        if start < 0:
            return message
        if message["role"] != SYSTEM:
            position = start + len(message["content"])
    return None


def _header(generation_prompt: str, before_reply: str) -> str:
    """Returns the text between the last user turn and the reply, with which a prompt ends.

    The template's generation prompt and what it writes before a given reply differ if the model can think: a thinking block that is only
    opened, for the model to fill, is left out; an empty one that is closed is kept, though the template omits it before a given reply.
    """
    continues = generation_prompt.startswith(before_reply) and not _opens_block(generation_prompt[len(before_reply) :])
    return generation_prompt if continues else before_reply


def _opens_block(text: str) -> bool:
    """Returns whether a mark such as <think> is opened and not closed; marks come in pairs."""
    marks = _MARK.findall(text)
    return len(marks) % 2 == 1 and marks[-1][1] != "/"


def _difference(ending: str, replacement: str) -> tuple[str, str]:
    """Returns what to remove from the end of a text that ends with `ending`, and what to append, so that it ends with `replacement`."""
    same = _common(ending, replacement)
    return ending[same:], replacement[same:]


def _common(one: Sequence, other: Sequence) -> int:
    """Returns the length of the common prefix of two sequences."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _unusable(tokenizer: "PreTrainedTokenizerBase", reason: str) -> UserError:
    return UserError(
        f"the chat template of {tokenizer.name_or_path} cannot be used: {reason}; choose another instruction-tuned model as"
        " backbone.path"
    )
