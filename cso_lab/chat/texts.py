"""The chat's notices, and the check whether a message mentions self-harm, after which a pointer to human help is shown.

The check compares a message with the phrases of texts.yaml. It does not assess a person's state: it shows the pointer to some who do not
need it, and misses messages in other words or another language. Nothing may rely on it.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import regex

from cso_lab.core.errors import UserError
from cso_lab.core.words import spaced

TEXTS = Path(__file__).with_name("texts.yaml")

_GAP, _LONGEST_GAP = "...", 3
# Shorter words must match exactly, because they are similar to too many others.
_MIN_FUZZY_LENGTH = 5
# Characters that replace letters in words that are disguised from filters.
_DISGUISES = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "@": "a", "$": "s", "!": "i"})

# The words of an option; several only in a script without spaces between words.
Option = list[str]
# The options at each position of a phrase; None is a gap.
Phrase = list[list[Option] | None]


@dataclass(frozen=True)
class Texts:
    """`notice`, `help` (paragraphs) and `after_help` are shown to the user; `phrases` are compared with messages."""

    notice: tuple[str, ...]
    help: tuple[str, ...]
    after_help: str
    phrases: tuple[Phrase, ...]

    def speaks_of_self_harm(self, message: str) -> bool:
        """Returns whether any phrase occurs in the message."""
        words = _words(message)
        return any(_begins_with(phrase, words[start:]) for start in range(len(words)) for phrase in self.phrases)


def load_texts(file: Path = TEXTS) -> Texts:
    """Returns the texts of a YAML file. Raises UserError if the file cannot be read or a text is missing."""
    import yaml

    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
    lists = ("notice", "help", "phrases")
    fields = content if isinstance(content, dict) else {}
    for key in lists:
        lines = fields.get(key)
        if not (isinstance(lines, list) and lines and all(isinstance(line, str) and line.strip() for line in lines)):
            raise UserError(f"{file}: {key} must be a list of texts that are not empty, as in {TEXTS}")
    if not isinstance(fields.get("after_help"), str):
        raise UserError(f"{file}: after_help must be a text, as in {TEXTS}")
    phrases = tuple(_phrase(line) for line in fields["phrases"])
    for line, phrase in zip(fields["phrases"], phrases, strict=True):
        if (
            not phrase
            or None in (phrase[0], phrase[-1])
            or not all(option for options in phrase if options for option in options)
        ):
            raise UserError(
                f"{file}: the phrase {line!r} must begin and end with a word, and have one on either side of each |"
            )
    return Texts(tuple(fields["notice"]), tuple(fields["help"]), fields["after_help"], phrases)


def _phrase(line: str) -> Phrase:
    """Returns the options at each position of a phrase."""
    return [None if part == _GAP else [_option(option) for option in part.split("|")] for part in line.split()]


def _option(text: str) -> Option:
    words = [letters for word in spaced(text.rstrip("*")).split() if (letters := _letters(word))]
    return [*words[:-1], f"{words[-1]}*"] if words and text.endswith("*") else words


def _words(message: str) -> list[str]:
    """Returns the words of a message in the form in which they are compared. Hyphens and dots separate words, apostrophes do not."""
    text = spaced(unicodedata.normalize("NFKC", message))
    return [letters for word in regex.findall(r"[\w\p{M}'’‘`´@$!]+", text) if (letters := _letters(word))]


def _letters(word: str) -> str:
    """Returns a word without case, accents, apostrophes and doubled letters; digits among letters become the letters they resemble."""
    word = "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(c))
    word = word.rstrip("!")
    if any(c.isalpha() for c in word):
        word = word.translate(_DISGUISES)
    return regex.sub(r"(.)\1+", r"\1", regex.sub(r"[^\w\p{M}]|_", "", word))


def _begins_with(phrase: Phrase, words: Sequence[str]) -> bool:
    """Returns whether the words begin with the phrase."""
    if not phrase:
        return True
    if phrase[0] is None:
        return any(_begins_with(phrase[1:], words[skipped:]) for skipped in range(_LONGEST_GAP + 1))
    return any(_begins_with_option(option, words) and _begins_with(phrase[1:], words[len(option) :]) for option in phrase[0])


def _begins_with_option(option: Option, words: Sequence[str]) -> bool:
    return len(words) >= len(option) and all(map(_matches, option, words))


def _matches(option: str, word: str) -> bool:
    """Returns whether a word is the option's word, with at most one error if that is long; "*" stands for any ending."""
    stem = option.rstrip("*")
    if word == stem or (option.endswith("*") and word.startswith(stem)):
        return True
    if len(stem) < _MIN_FUZZY_LENGTH:
        return False
    sizes = range(len(stem) - 1, len(stem) + 2) if option.endswith("*") else [len(word)]
    return any(_one_error(stem, word[:size]) for size in sizes)


def _one_error(correct: str, word: str) -> bool:
    """Returns whether one letter is wrong, missing, added or swapped with its neighbour; the first may only be swapped."""
    if abs(len(correct) - len(word)) > 1 or len(word) < 2:
        return False
    start = next((i for i, (a, b) in enumerate(zip(correct, word, strict=False)) if a != b), min(len(correct), len(word)))
    correct_end, word_end = correct[start:], word[start:]
    swapped = correct_end[:2] == word_end[:2][::-1] and correct_end[2:] == word_end[2:]
    if start == 0:
        return swapped
    return swapped or correct_end[1:] == word_end[1:] or correct_end[1:] == word_end or correct_end == word_end[1:]
