"""Which tokens of a response "(Strategy) wording" are the strategy's."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LABEL = re.compile(r"\s*(\([^()]+\))")


def strategy_tokens(ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> range:
    """Returns the positions of the tokens of "(Strategy)" among the tokens `ids` of a response; none if it does not open with one.

    A token with any character of "(Strategy)" is among them: one that also holds the blank before it, or the start of the wording after
    it, counts to the strategy and not to the wording.
    """
    label = _LABEL.match(_text(ids, tokenizer))
    if label is None:
        return range(0)
    stop = next(stop for stop in range(1, len(ids) + 1) if label[1] in _text(ids[:stop], tokenizer))
    start = next(start for start in reversed(range(stop)) if label[1] in _text(ids[start:stop], tokenizer))
    return range(start, stop)


def _text(ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
