"""A data set of the model hub as a file: fetched once, and from then on like any other raw file."""

import os
import re
from pathlib import Path

from cso_lab.errors import UserError
from cso_lab.files import write_jsonl


def is_hub_id(name: str) -> bool:
    """Whether OWNER/NAME is meant, and not a file."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and Path(name).suffix not in (".json", ".jsonl")


def from_hub(name: str) -> Path:
    """The JSON Lines file with the records of all splits of a data set; a UserError when it cannot be had. Runs none of its code."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cso_lab" / "hub"
    file = cache / f"{name.replace('/', '--')}.jsonl"
    if not file.exists():
        from datasets import load_dataset

        try:
            splits = load_dataset(name)
        except Exception as error:  # of many kinds, from half a dozen libraries
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"data.path={name}: no such file, and the hub gives no data set of that name ({first})") from None
        write_jsonl(file, (record for split in splits.values() for record in split))
    return file
