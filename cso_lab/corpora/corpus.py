"""What a reader makes of a raw file, and which of its dialogues are for training, for testing and for the search."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path

from cso_lab.corpora.hub import from_hub, is_hub_id
from cso_lab.dialogue import Dialogue
from cso_lab.errors import UserError
from cso_lab.strategies import strategy_set


class Reason(StrEnum):
    """Why a record was left out. A record has one reason: the first met, its turns read in order."""

    NOT_A_RECORD = "not a record"
    NO_CONTENT = "no content"
    NO_SPEAKER = "a turn without a speaker"
    NO_TEXT = "a supporter turn with a strategy but without text"
    NO_STRATEGY = "a supporter turn without a strategy"
    OTHERS = "a supporter turn labelled Others"
    TWO_SUPPORTERS = "two supporter turns in a row"
    UNKNOWN_STRATEGY = "a supporter turn with an unknown strategy"
    NO_SEEKER = "no seeker turn"
    TOO_SHORT = "fewer than 2 supporter turns after a seeker turn"


@dataclass(frozen=True)
class Corpus:
    """The usable dialogues of a raw file in file order, and the ids of the rejected records under their reason."""

    dialogues: tuple[Dialogue, ...]
    rejected: Mapping[str, list[str]]

    def rejects(self) -> dict:
        """The account of the reading as plain JSON: {records, usable, rejected: {reason: {count, ids}}}."""
        return {
            "records": len(self.dialogues) + sum(map(len, self.rejected.values())),
            "usable": len(self.dialogues),
            "rejected": {str(reason): {"count": len(ids), "ids": list(ids)} for reason, ids in self.rejected.items()},
        }

    def split(self, test_share: float, seed: int) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
        """(train, test), see `split`."""
        return split(self.dialogues, test_share, seed)

    def __str__(self) -> str:
        """How many records are usable, and one line a reason for the others."""
        account = self.rejects()
        turns = sum(len(dialogue.turns) for dialogue in self.dialogues)
        lines = [f"{account['usable']} of {account['records']} records are usable dialogues ({turns} turns)"]
        for reason, entry in account["rejected"].items():
            shown = ", ".join(entry["ids"][:3]) + (", ..." if entry["count"] > 3 else "")
            lines.append(f"  left out {entry['count']}: {reason} ({shown})")
        return "\n".join(lines)


def _rank(dialogue: Dialogue, seed: int) -> str:
    # Only what a dialogue opens with: mending a later turn of a corpus leaves the split as it was.
    opening = [turn.text for turn in dialogue.turns[:2]]
    return hashlib.sha256(json.dumps([seed, dialogue.scene, dialogue.description, opening]).encode()).hexdigest()


def split(dialogues: Sequence[Dialogue], test_share: float, seed: int = 0) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
    """(train, test), both in corpus order: the round(test_share * n) dialogues of the lowest rank are the test set.

    A dialogue's rank is a hash of the seed, its setting and its opening, so it does not depend on the other dialogues,
    on their order or on the machine. `test_share` lies in [0, 1); 0 means no test set.
    """
    if isinstance(test_share, bool) or not isinstance(test_share, int | float) or not 0 <= test_share < 1:
        raise UserError(f"data.test_share={test_share}: must be a number from 0 (no test dialogues) to below 1")
    ranks = [_rank(dialogue, seed) for dialogue in dialogues]
    # Copies of one dialogue share a rank, and so a side: a training dialogue is never also a test dialogue.
    test = set(sorted(ranks)[: round(test_share * len(dialogues))])
    return (
        tuple(dialogue for dialogue, rank in zip(dialogues, ranks, strict=True) if rank not in test),
        tuple(dialogue for dialogue, rank in zip(dialogues, ranks, strict=True) if rank in test),
    )


def part_of(part: str) -> tuple[int, int]:
    """(i, n) of "i/n", 1 <= i <= n."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", str(part))
    index, parts = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= parts:
        raise UserError(f"data.shard={part}: must be i/n with 1 <= i <= n, such as 1/1 (all of them) or 2/4")
    return index, parts


def shard(dialogues: Sequence[Dialogue], part: str) -> tuple[Dialogue, ...]:
    """The i-th of n parts ("i/n", i from 1): dialogues i, i+n, i+2n, ...; the n parts are disjoint and cover all."""
    index, parts = part_of(part)
    return tuple(dialogues[index - 1 :: parts])


def seeds(train: Sequence[Dialogue], seed_dialogues: int | None, part: str = "1/1") -> tuple[Dialogue, ...]:
    """The dialogues the search expands: the first `seed_dialogues` of the training set (None: all), and of these a part."""
    if seed_dialogues is not None and (
        isinstance(seed_dialogues, bool) or not isinstance(seed_dialogues, int) or seed_dialogues < 1
    ):
        raise UserError(f"data.seed_dialogues={seed_dialogues}: must be a whole number from 1, or null for all")
    return shard(train[:seed_dialogues], part)


def data_file(cfg_data: Mapping) -> Path:
    """The file `data.path` means; `pkg://PACKAGE/FILE` lies within an installed package; where `data.hub` is true,
    OWNER/NAME is a data set on the model hub. A UserError when there is none."""
    from omegaconf import OmegaConf

    name, given = cfg_data.get("name"), None
    if not (OmegaConf.is_config(cfg_data) and OmegaConf.is_missing(cfg_data, "path")):
        given = cfg_data.get("path")
    if given is None or str(given).strip() in ("", "???"):
        raise UserError(f"data={name} needs its file: give data.path=FILE")
    if str(given).startswith("pkg://"):
        package, _, file = str(given).removeprefix("pkg://").partition("/")
        try:
            path = Path(str(resources.files(package) / file))
        except (ModuleNotFoundError, ValueError):
            raise UserError(f"data.path={given}: no package {package!r} is installed") from None
    else:
        path = Path(str(given)).expanduser()
    if not path.is_file() and cfg_data.get("hub") and is_hub_id(str(given)):
        return from_hub(str(given))
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "no such file"
        raise UserError(f"data.path={given}: {problem}; give data.path=FILE")
    return path


def load(cfg_data: Mapping) -> Corpus:
    """Read `data.path` with `data.reader` in the strategies of `data.strategies`.

    A UserError when the file is missing, is no JSON, or holds no usable dialogue. Unusable records are no error:
    `Corpus.rejected` names them.
    """
    strategies = strategy_set(cfg_data.get("strategies"))
    path = data_file(cfg_data)

    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from cso_lab.explain import explain

    # Partial, because Hydra would turn a StrategySet given as an argument into a config node.
    try:
        reader = instantiate(cfg_data["reader"], _partial_=True)
    except InstantiationException as error:
        # `cfg_data` may stand alone, and then does not know that it is `data`.
        raise UserError(f"data.reader: {str(explain(error)).rpartition('reader: ')[2]}") from error
    corpus = reader(path, strategies)
    if not corpus.dialogues:
        reasons = "; ".join(f"{len(ids)}: {reason}" for reason, ids in corpus.rejected.items()) or "it holds no record"
        settings = f"data={cfg_data.get('name')} and data.strategies={strategies.name}"
        raise UserError(f"{path}: no usable dialogue ({reasons}); {settings} must be those of this file")
    return corpus
