"""The answer in a model's reply without the reasoning that some models write before it."""

import re

# What opens and closes a block of reasoning, by the models that write it.
_BLOCKS = [
    (re.compile(opening, re.IGNORECASE), re.compile(closing, re.IGNORECASE))
    for opening, closing in (
        # Qwen3, DeepSeek-R1, GLM, Nemotron and most others; Seed-OSS writes <seed:think>
        (r"<(?:seed:)?think(?:ing)?>", r"</(?:seed:)?think(?:ing)?>"),
        (r"<(?:thought|reasoning)>", r"</(?:thought|reasoning)>"),
        (r"\[THINK\]", r"\[/THINK\]"),  # Mistral
        (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Cohere
        (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # OpenThinker
        (r"<\|channel>(?:thought|analysis)\b", r"<channel\|>"),  # Gemma 4
        (r"◁think▷", r"◁/think▷"),  # Kimi
    )
]
# What some of these models write around the answer.
_WRAPPERS = re.compile(r"<\|(?:START|END)_RESPONSE\|>|<\|(?:begin|end)_of_solution\|>", re.IGNORECASE)
# The channels of gpt-oss: the answer is the message of the channel "final".
_CHANNEL = re.compile(r"<\|channel\|>")
_FINAL = re.compile(r"<\|channel\|>\s*final\b.*?<\|message\|>", re.DOTALL)
_MESSAGE_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
# The same where a server has removed the marks and left the names of the channels.
_UNMARKED = re.compile(r"\A\s*analysis.*assistantfinal", re.DOTALL)


def strip_reasoning(text: str) -> str:
    """Returns the answer in a reply: the text without blocks of reasoning, and of a reply in channels that of the last final one.

    A block without an opening mark begins with the text, since some chat templates open it in the prompt; one without a closing mark
    was cut and ends with the text. Returns "" if nothing else is left, and a text without any mark as it is.
    """
    while (answer := _without_outer_reasoning(text)) != text:
        text = answer  # removing a block can join what makes another mark
    return text


class ReplyText(str):
    """The answer in a model's reply. `raw`: the reply as the model wrote it; `cut`: it ended at a limit of tokens.

    `answer` is `raw` without its reasoning if not given.
    """

    __slots__ = ("raw", "cut")

    def __new__(cls, raw: str, cut: bool = False, answer: str | None = None) -> "ReplyText":
        text = super().__new__(cls, strip_reasoning(raw) if answer is None else answer)
        text.raw, text.cut = raw, cut
        return text


def _without_outer_reasoning(text: str) -> str:
    answer = _WRAPPERS.sub("", _UNMARKED.sub("", _final_channel(text)))
    for opening, closing in _BLOCKS:
        answer = _without_blocks(answer, opening, closing)
    return text if answer == text else answer.strip()


def _final_channel(text: str) -> str:
    """Returns the last message of the final channel; without one, what stands before the first channel."""
    finals = list(_FINAL.finditer(text))
    if finals:
        return _MESSAGE_END.split(text[finals[-1].end() :], maxsplit=1)[0]
    return _MESSAGE_END.split(text, maxsplit=1)[0] if _CHANNEL.search(text) else text


def _without_blocks(text: str, opening: re.Pattern, closing: re.Pattern) -> str:
    """Returns the text without its blocks, each from an opening mark to the next closing one."""
    kept, position = "", 0
    while opened := opening.search(text, position):
        closed = closing.search(text, opened.end())
        kept += text[position : opened.start()]
        if closed is None:
            return _after_last(kept, closing)
        position = closed.end()
    return _after_last(kept + text[position:], closing)


def _after_last(text: str, closing: re.Pattern) -> str:
    """Returns what follows the last closing mark that no opening mark precedes."""
    return closing.split(text)[-1]
