"""What the chat says to people, and whether a message speaks of self-harm: by the words of texts.yaml, on the side of showing help.

This is a list of phrases, no judgement of anybody's state: it shows its pointer to people who need none, and it misses what is said in
other words or another language. Nothing may rely on it.
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
# Words shorter than this are too near to too many others to be read with a letter wrong.
_FORGIVING = 5
# What stands for letters in words that are written round a filter.
_DISGUISES = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "@": "a", "$": "s", "!": "i"})

# The words of an option, of which there are several only where a script has no spaces between them.
Option = list[str]
# The options for each place of a phrase, or a gap.
Phrase = list[list[Option] | None]


@dataclass(frozen=True)
class Texts:
    """`notice`, `help` (paragraphs) and `after_help`, as they are shown; `phrases` as they are compared."""

    notice: tuple[str, ...]
    help: tuple[str, ...]
    after_help: str
    phrases: tuple[Phrase, ...]

    def speaks_of_self_harm(self, message: str) -> bool:
        """Whether any phrase occurs in the message."""
        words = _words(message)
        return any(_follows(phrase, words[at:]) for at in range(len(words)) for phrase in self.phrases)


def load_texts(file: Path = TEXTS) -> Texts:
    """The texts of a YAML file; a UserError says what it lacks."""
    import yaml

    try:
        found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
    lists = ("notice", "help", "phrases")
    given = found if isinstance(found, dict) else {}
    for key in lists:
        lines = given.get(key)
        if not (isinstance(lines, list) and lines and all(isinstance(line, str) and line.strip() for line in lines)):
            raise UserError(f"{file}: {key} must be a list of texts that are not empty, as in {TEXTS}")
    if not isinstance(given.get("after_help"), str):
        raise UserError(f"{file}: after_help must be a text, as in {TEXTS}")
    phrases = tuple(_phrase(line) for line in given["phrases"])
    for line, phrase in zip(given["phrases"], phrases, strict=True):
        if (
            not phrase
            or None in (phrase[0], phrase[-1])
            or not all(option for options in phrase if options for option in options)
        ):
            raise UserError(
                f"{file}: the phrase {line!r} must begin and end with a word, and have one on either side of each |"
            )
    return Texts(tuple(given["notice"]), tuple(given["help"]), given["after_help"], phrases)


def _phrase(line: str) -> Phrase:
    """For each place of a phrase what may stand there."""
    return [None if part == _GAP else [_option(option) for option in part.split("|")] for part in line.split()]


def _option(text: str) -> Option:
    found = [letters for word in spaced(text.rstrip("*")).split() if (letters := _letters(word))]
    return [*found[:-1], f"{found[-1]}*"] if found and text.endswith("*") else found


def _words(message: str) -> list[str]:
    """The words of a message as they are compared. Hyphens and dots part words, apostrophes do not."""
    text = spaced(unicodedata.normalize("NFKC", message))
    return [letters for word in regex.findall(r"[\w\p{M}'’‘`´@$!]+", text) if (letters := _letters(word))]


def _letters(word: str) -> str:
    """A word without case, accents, apostrophes and doubled letters; digits among letters are read as the letters they look like."""
    word = "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(c))
    word = word.rstrip("!")
    if any(c.isalpha() for c in word):
        word = word.translate(_DISGUISES)
    return regex.sub(r"(.)\1+", r"\1", regex.sub(r"[^\w\p{M}]|_", "", word))


def _follows(phrase: Sequence[list[str]], words: Sequence[str]) -> bool:
    """Whether the words begin with the phrase."""
    if not phrase:
        return True
    if phrase[0] is None:
        return any(_follows(phrase[1:], words[skipped:]) for skipped in range(_LONGEST_GAP + 1))
    return any(_starts(option, words) and _follows(phrase[1:], words[len(option) :]) for option in phrase[0])


def _starts(option: Option, words: Sequence[str]) -> bool:
    return len(words) >= len(option) and all(map(_is, option, words))


def _is(option: str, word: str) -> bool:
    stem = option.rstrip("*")
    if word == stem or (option.endswith("*") and word.startswith(stem)):
        return True
    if len(stem) < _FORGIVING:
        return False
    sizes = range(len(stem) - 1, len(stem) + 2) if option.endswith("*") else [len(word)]
    return any(_one_slip(stem, word[:size]) for size in sizes)


def _one_slip(meant: str, written: str) -> bool:
    """Whether one letter is wrong, missing, added or swapped with its neighbour. The first one is right, or swapped with the second."""
    if abs(len(meant) - len(written)) > 1 or len(written) < 2:
        return False
    start = next((i for i, (a, b) in enumerate(zip(meant, written, strict=False)) if a != b), min(len(meant), len(written)))
    rest, other = meant[start:], written[start:]
    swapped = rest[:2] == other[:2][::-1] and rest[2:] == other[2:]
    if start == 0:
        return swapped
    return swapped or rest[1:] == other[1:] or rest[1:] == other or rest == other[1:]
