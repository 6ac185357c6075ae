"""A search in parts (`data.shard=i/n`): where each part has its files, and how the parts become one search again.

The parts of a search lie below the folder of the whole, `shards/2of4` and so on, so that they find one another without being told.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from cso_lab.core.files import read_json, write_json
from cso_lab.corpora import part_of
from cso_lab.expansion.expand import SUMMARY, tree_files


def part_folder(whole: Path, part: str) -> Path:
    """The folder of part "i/n" of the search in `whole`; 1/1 is the whole itself."""
    index, parts = part_of(part)
    return whole if parts == 1 else whole / "shards" / f"{index}of{parts}"


def union(whole: Path) -> tuple[list[Path], list[str]]:
    """(the trees of the whole search in the order of their dialogues' ids, the parts that are missing for it: "2/4", ...).

    The trees are those in `whole` itself or, where that search has not ended, those of its n parts; where parts of several n
    lie beside one another, of the n that lacks fewest. A part counts once its search has ended, also with dialogues set aside.
    """
    ended = defaultdict(set)
    for folder in _parts(whole):
        if _ended(folder):
            index, parts = _numbers(folder)
            ended[parts].add(index)
    if _ended(whole) or not ended:
        return tree_files(whole), []
    parts = min(ended, key=lambda n: (n - len(ended[n]), n))
    missing = [f"{index}/{parts}" for index in range(1, parts + 1) if index not in ended[parts]]
    files = (file for index in ended[parts] for file in tree_files(part_folder(whole, f"{index}/{parts}")))
    return sorted(files, key=lambda file: file.name), missing


def take_over(whole: Path, out: Path, dialogues: Iterable[str]) -> int:
    """Copy into `out` the trees of `dialogues` (ids) that any other part of the search has finished; returns how many."""
    found = {file.stem: file for folder in (whole, *_parts(whole)) for file in tree_files(folder)}
    lacking = set(dialogues) - {file.stem for file in tree_files(out)}
    for dialogue in lacking & set(found):
        write_json(out / "trees" / found[dialogue].name, read_json(found[dialogue]))
    return len(lacking & set(found))


def usage_of_parts(whole: Path) -> Mapping[str, Mapping]:
    """{"i/n": what the part's search.json says under `usage`} of every part that has ended."""
    summaries = ((folder, folder / SUMMARY) for folder in _parts(whole))
    return {"{}/{}".format(*_numbers(folder)): read_json(file)["usage"] for folder, file in summaries if file.exists()}


def _ended(folder: Path) -> bool:
    """Whether the search in `folder` came to its end, rather than to a cap on its budget or to Ctrl-C."""
    return (folder / SUMMARY).exists() and not read_json(folder / SUMMARY).get("stopped")


def _parts(whole: Path) -> list[Path]:
    return sorted((whole / "shards").glob("*of*"))


def _numbers(folder: Path) -> tuple[int, int]:
    return part_of(folder.name.replace("of", "/"))
