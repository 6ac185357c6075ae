"""The words of a text, in any script: what every metric and count of words is taken of."""

import unicodedata

import regex

# Scripts that put no spaces between words: each of their characters, with the marks on it, counts as a word of its own.
_SPACELESS = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}"
    r"\p{Tai_Viet}\u30FC\uFF70]"
)
# A letter or a digit, which begins a word, and what may follow it. Superscripts, fractions and enclosing marks are no part of words.
_FIRST = rf"[[\p{{L}}\p{{Nd}}]--{_SPACELESS}]"
_NEXT = rf"[[\p{{L}}\p{{Nd}}\p{{Mn}}\p{{Mc}}]--{_SPACELESS}]"
_CHARACTER = rf"[{_SPACELESS}&&[\p{{L}}\p{{Nd}}]][\p{{Mn}}\p{{Mc}}]*"
_RUN = rf"{_FIRST}{_NEXT}*"

_WORD = regex.compile(rf"{_CHARACTER}|{_RUN}", regex.V1)
_CONTRACTED = regex.compile(rf"{_CHARACTER}|{_RUN}(?:'{_NEXT}+)*", regex.V1)
_CHARACTERS = regex.compile(_CHARACTER, regex.V1)
# They choose between a letter's or an emoji's looks, and are marks by category only.
_SELECTORS = regex.compile(r"[\uFE00-\uFE0F\U000E0100-\U000E01EF]")


def words(text: str, contractions: bool = False) -> list[str]:
    """The words in lower case, without punctuation; each character of a script without spaces (Chinese, Japanese, Thai ...) is one.

    On English text these are the tokens of the package rouge_score: "don't" is two of them. With `contractions` it is one.
    """
    text = _SELECTORS.sub("", unicodedata.normalize("NFC", text.lower()))
    return _CONTRACTED.findall(text.replace("’", "'")) if contractions else _WORD.findall(text)


def count_words(text: str) -> int:
    """How many words a text has: what stands between spaces, and where a script has no spaces, its characters."""
    return sum(len(words(part)) if _CHARACTERS.search(part) else 1 for part in text.split())


def spaced(text: str) -> str:
    """The text with a blank on either side of each character of a script that is written without spaces."""
    return _CHARACTERS.sub(lambda character: f" {character[0]} ", _SELECTORS.sub("", text))
