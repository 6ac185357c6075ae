"""Splits a text in any script into words, for all metrics and word counts."""

import unicodedata

import regex

# Scripts without spaces between words: each of their characters, with its combining marks, counts as a word.
_SPACELESS = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}"
    r"\p{Tai_Viet}\u30FC\uFF70]"
)
# A word begins with a letter or a digit; combining marks may follow. Superscripts, fractions and enclosing marks belong to no word.
_FIRST = rf"[[\p{{L}}\p{{Nd}}]--{_SPACELESS}]"
_NEXT = rf"[[\p{{L}}\p{{Nd}}\p{{Mn}}\p{{Mc}}]--{_SPACELESS}]"
_CHARACTER = rf"[{_SPACELESS}&&[\p{{L}}\p{{Nd}}]][\p{{Mn}}\p{{Mc}}]*"
_RUN = rf"{_FIRST}{_NEXT}*"

_WORD = regex.compile(rf"{_CHARACTER}|{_RUN}", regex.V1)
_CONTRACTED = regex.compile(rf"{_CHARACTER}|{_RUN}(?:'{_NEXT}+)*", regex.V1)
_CHARACTERS = regex.compile(_CHARACTER, regex.V1)
# Variation selectors choose the look of a letter or an emoji. Unicode classes them as marks, but they are removed.
_SELECTORS = regex.compile(r"[\uFE00-\uFE0F\U000E0100-\U000E01EF]")


def words(text: str, contractions: bool = False) -> list[str]:
    """Returns the words in lower case, without punctuation; each character of a script without spaces (Chinese, Thai, ...) is one.

    On English text these are the tokens of the package rouge_score: "don't" is two of them. With `contractions` it is one.
    """
    text = _SELECTORS.sub("", unicodedata.normalize("NFC", text.lower()))
    return _CONTRACTED.findall(text.replace("’", "'")) if contractions else _WORD.findall(text)


def count_words(text: str) -> int:
    """Returns the number of words: parts between spaces count as one, or by `words` if they have characters of a spaceless script."""
    return sum(len(words(part)) if _CHARACTERS.search(part) else 1 for part in text.split())


def spaced(text: str) -> str:
    """Returns the text with a blank before and after each character of a script without spaces."""
    return _CHARACTERS.sub(lambda character: f" {character[0]} ", _SELECTORS.sub("", text))
