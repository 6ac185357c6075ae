"""Where the sentences of a text in any script end."""

import regex

# After a period that ends an abbreviation, an initial or the number of a line in a list the sentence goes on.
_NO_END = r"(?<!\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|e\.g|i\.e|\p{Lu})\.)(?<!^\s*\d{1,2}\.)"
_CLOSING = r"[\p{Pe}\p{Pf}\"'*_`]*"
# Marks of scripts with spaces end a sentence before a space; those of other scripts (Chinese, Japanese, ...) wherever they stand.
_SPACED = rf"[[\p{{Sentence_Terminal}}…]--[。！？｡．]]+{_NO_END}{_CLOSING}(?=\s|\Z)"
_SPACELESS = rf"[。！？｡．][\p{{Sentence_Terminal}}…]*{_CLOSING}"
_ELLIPSIS = rf"……{_CLOSING}"
_END = regex.compile(rf"{_SPACED}|{_SPACELESS}|{_ELLIPSIS}", regex.V1 | regex.MULTILINE)


def whole_sentences(text: str) -> str:
    """Returns the text up to the end of its last whole sentence, "" if it has none."""
    ends = [end.end() for end in _END.finditer(text)]
    return text[: ends[-1]] if ends else ""
